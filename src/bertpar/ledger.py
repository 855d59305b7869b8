"""The ledger: what compute time runs have spent, lost and saved, and when a budget for it is used up. Pure.

Time counts while an attempt at a training holds a slot, from the start of its activity to its end: of two side by
side the time of both, and none for what waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from bertpar.events import AttemptEnded, TrainResult
from bertpar.states import RunState

_SECONDS_PER_HOUR = 3600.0

_CRUMB = 0.01
"""What is left of a budget, as a share of it, that is not worth starting a training for."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Compute time of one or more runs."""

    spent_seconds: float
    """For how long attempts held slots, also those that came to nothing."""
    lost_seconds: float
    """What of that had to be done again: steps since the last checkpoint, and starting up."""
    saved_seconds: float
    """What equal runs had done already, and what early stopping left out."""


def ledger_of(runs: Iterable[RunState]) -> Ledger:
    """Return the sums over `runs`."""
    states = list(runs)
    return Ledger(
        spent_seconds=sum(state.spent_seconds for state in states),
        lost_seconds=sum(state.lost_seconds for state in states),
        saved_seconds=sum(state.saved_seconds + state.stopped_early_seconds for state in states),
    )


def entry(state: RunState, ended: AttemptEnded) -> dict[str, Any]:
    """Return what the end of an attempt changes about its run's state; nothing where it has no slot, or none any more.

    Lost is what was spent and is not kept. That is counted anew each time, so that a checkpoint which turns out to be
    damaged later on counts as lost then.
    """
    if ended.attempt != state.attempt or state.slot_since is None:
        return {}
    seconds = ended.noticed_at - state.slot_since if ended.seconds is None else ended.seconds
    spent = state.spent_seconds + max(0.0, seconds)
    kept = ended.kept_seconds - state.saved_seconds  # without what equal runs had done
    return {
        "has_slot": False,
        "slot_since": None,
        "spent_seconds": spent,
        "lost_seconds": min(spent, max(0.0, spent - kept)),
    }


def stopped_early_seconds(result: TrainResult) -> float:
    """Return the wall time of the steps that early stopping left out, each taken to be as long as those done."""
    if not result.stopped_early:
        return 0.0
    return (result.total_steps - result.last.step) * result.work_seconds / result.last.step


def until(state: RunState, now: float) -> RunState:
    """Return the state with what the attempt that runs has spent until `now`, in seconds since 1970."""
    if state.slot_since is None or not state.has_slot:
        return state
    spent = state.spent_seconds + max(0.0, now - state.slot_since)
    return replace(state, spent_seconds=spent, slot_since=max(now, state.slot_since))


# --- budgets ----------------------------------------------------------------------------------------------


def used_up_at(runs: Iterable[RunState], hours: float | None) -> float | None:
    """Return when a budget is used up if all attempts keep their slots, in seconds since 1970.

    None where that will not be: there is no budget, or nobody holds a slot.
    """
    states = list(runs)
    starts = [state.slot_since for state in states if state.slot_since is not None and state.has_slot]
    if hours is None or not starts:
        return None
    left = hours * _SECONDS_PER_HOUR - ledger_of(states).spent_seconds
    return (left + sum(starts)) / len(starts)


def is_used_up(runs: Iterable[RunState], hours: float | None, now: float) -> bool:
    """Say whether a budget is used up, `now` being in seconds since 1970; a crumb of it that is left does not count."""
    states = list(runs)
    if hours is None:
        return False
    if (at := used_up_at(states, hours)) is not None:
        return now >= at
    return ledger_of(states).spent_seconds >= (1 - _CRUMB) * hours * _SECONDS_PER_HOUR


def out_of_budget(hours: float) -> str:
    """Return that a sweep's budget is used up, in a user's words."""
    return f"its budget of {hours:g} {'hour' if hours == 1 else 'hours'} of compute time is used up"
