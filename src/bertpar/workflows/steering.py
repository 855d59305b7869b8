"""What users may ask of a live sweep, why not, and what it changes about its runs. Pure functions of their states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bertpar.ledger import is_used_up, ledger_of, until
from bertpar.states import Command, Order, RunRef, RunState, RunStatus, Steered, SweepStatus

MAX_RUNS = 1000
"""Of one sweep: its state has to fit into one payload, of 2 MB at most."""

_CAN_LEAVE: tuple[RunStatus, ...] = ("queued", "preparing", "training")
_BEFORE_ITS_SCORE: tuple[RunStatus, ...] = ("preparing", "training")
_IN_FLIGHT: tuple[RunStatus, ...] = (*_BEFORE_ITS_SCORE, "evaluating")

_ALLOWED: dict[str, tuple[RunStatus, ...]] = {
    "pause": (*_CAN_LEAVE, "paused"),
    "resume": ("paused",),
    "cancel": (*_CAN_LEAVE, "evaluating", "paused", "cancelled"),
    "priority": (*_CAN_LEAVE, "paused"),
    "retry": ("failed", "cancelled"),
}
"""The states in which a command makes sense for a run; where it has been carried out already it changes nothing."""

_DONE: dict[str, str] = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "retry": "tried again"}
_LEAVING: dict[Order, str] = {"pause": "being paused", "cancel": "being cancelled", "yield": "yielding its slot"}


def refusal(sweep: SweepStatus, command: Command) -> str | None:
    """Return why the sweep in this state does not take the command, in a user's words; None where it takes it."""
    if command.kind in ("resume", "retry") and (reason := _refusal_without_budget(sweep)):
        return reason
    if command.kind == "drop":
        return _refusal_of_drop(sweep, command.where)
    if command.run is not None:
        return _refusal_of_run(sweep, command)
    if command.kind == "resume":
        return _refusal_of_resume(sweep)
    assert command.kind in ("pause", "set"), f"{command.kind} is about one run"
    return None


def _refusal_of_run(sweep: SweepStatus, command: Command) -> str | None:
    state = next((state for state in sweep.runs if state.run.index == command.run), None)
    if state is None:
        known = [str(state.run.index) for state in sweep.runs]
        has = f"its runs: {known[0]} to {known[-1]}" if known else "it has none yet"
        return f"sweep {sweep.sweep_id} has no run {command.run}; {has}"
    name, kind = f"run {state.run.run_id}", command.kind
    if state.order in ("pause", "cancel") and state.order != kind:
        return f"{name} is {_LEAVING[state.order]}, and takes no other command until it is: bertpar status shows when"
    if state.status not in _ALLOWED[kind]:
        what = "given a priority" if kind == "priority" else _DONE[kind]
        return f"{name} is {state.status}: only a run that is {_one_of(_ALLOWED[kind])} can be {what}"
    if kind == "resume" and sweep.paused is not None:
        return (
            f"{name} cannot be resumed alone: its sweep is paused, {sweep.paused}. bertpar resume {sweep.sweep_id} "
            "resumes all"
        )
    return None


def _refusal_of_resume(sweep: SweepStatus) -> str | None:
    if leaving := [state for state in sweep.runs if state.order == "pause"]:
        return (
            f"sweep {sweep.sweep_id} is still pausing ({_named(leaving)}): resume it when bertpar status shows no more"
        )
    if sweep.paused is None and all(state.status != "paused" for state in sweep.runs):
        return f"sweep {sweep.sweep_id} is not paused, and neither is any of its runs"
    return None


def _refusal_of_drop(sweep: SweepStatus, where: Mapping[str, Sequence[str]]) -> str | None:
    existing = existing_values(sweep.runs)
    asked = " ".join(f"{key}={','.join(values)}" for key, values in where.items())
    if unknown := [key for key in where if key not in existing]:
        return f"no run of sweep {sweep.sweep_id} has a value for {', '.join(unknown)}; there are: {_listed(existing)}"
    matching = _matching(sweep.runs, where)
    if not matching:
        shown = {key: existing[key] for key in where}
        return f"no run of sweep {sweep.sweep_id} has {asked}; there are: {_listed(shown)}"
    if busy := [state for state in matching if state.order == "pause"]:
        return f"{_named(busy)} is being paused: drop it when bertpar status shows that it is"
    if all(state.status not in _ALLOWED["cancel"] for state in matching):
        return f"all runs with {asked} are done, and stay: {_named(matching)}"
    return None


def _refusal_without_budget(sweep: SweepStatus) -> str | None:
    if sweep.out_of_budget is None:
        return None
    return (
        f"sweep {sweep.sweep_id} starts no more work: {sweep.out_of_budget}. Raise it first: "
        f"bertpar set {sweep.sweep_id} budget.hours={2 * (sweep.options.budget_hours or 1):g}"
    )


def refusal_of_budget(sweep: SweepStatus, command: Command, now: float) -> str | None:
    """Return why a budget cannot be set: at `now`, in seconds since 1970, more is spent."""
    hours = command.budget_hours
    if command.setting != "budget_hours" or not is_used_up(sweep.runs, hours, now):
        return None
    spent = ledger_of(until(state, now) for state in sweep.runs).spent_seconds / 3600
    return f"budget.hours={hours:g} is spent already: sweep {sweep.sweep_id} has used {spent:.3g}. Give more, or null"


def refusal_of_more(sweep: SweepStatus, num_more: int) -> str | None:
    """Return why the sweep takes no `num_more` further runs."""
    if num_more and (reason := _refusal_without_budget(sweep)):
        return reason
    if len(sweep.runs) + num_more > MAX_RUNS:
        return f"sweep {sweep.sweep_id} would have more than {MAX_RUNS} runs: split it"
    return None


def refusal_of_extension(sweep: SweepStatus, runs: Sequence[RunRef], *, is_closed: bool) -> str | None:
    """Return why these runs cannot be added by a user, who gives each configuration once."""
    if not is_closed:
        return f"the sweeper of {sweep.sweep_id} still chooses runs, and numbers them: add when it has ended"
    known = {state.run.spec_key: state.run.run_id for state in sweep.runs}
    for run in runs:
        if run.spec_key in known:
            named = " ".join(f"{key}={value}" for key, value in run.swept.items()) or "the configuration"
            return f"{named} is in the sweep already: {known[run.spec_key]}"
        known[run.spec_key] = "given twice"
    return refusal_of_more(sweep, len(runs))


def effect(sweep: SweepStatus, command: Command) -> tuple[Steered, dict[int, dict[str, Any]]]:
    """Return what a command that is not refused does, and what it changes about which run, by index."""
    runs = {state.run.index: state for state in sweep.runs}
    if command.kind == "drop":
        matching = _matching(sweep.runs, command.where)
        dropped = [state for state in matching if state.status in _ALLOWED["cancel"]]
        done = tuple(state.run.index for state in matching if state not in dropped)
        changes = {state.run.index: _told(state, "cancel") for state in dropped if state.status != "cancelled"}
        return Steered(runs=tuple(state.run.index for state in dropped), done=done), changes
    if command.kind == "priority":
        assert command.run is not None
        changes = {command.run: {"priority": command.priority}}
        yields = _who_yields(runs, command) if sweep.paused is None else None
        if yields is not None:
            changes[yields] = _told(runs[yields], "yield")
        return Steered(runs=(command.run,), yields=yields), changes
    if command.kind == "set":
        return Steered(runs=()), {}
    chosen = [state for state in sweep.runs if command.run in (None, state.run.index)]
    if command.kind == "pause":
        # of a whole sweep: what is queued may stay so, because nothing starts
        leaving = [s for s in chosen if s.status in (_CAN_LEAVE if command.run is not None else _BEFORE_ITS_SCORE)]
        changes = {state.run.index: _told(state, "pause") for state in leaving if state.order != "cancel"}
    elif command.kind == "resume":
        changes = {state.run.index: {"status": "queued"} for state in chosen if state.status == "paused"}
    elif command.kind == "cancel":
        changes = {state.run.index: _told(state, "cancel") for state in chosen if state.status != "cancelled"}
    else:
        again = {"status": "queued", "failure": None, "cancelled_by_user": False}
        changes = {state.run.index: again for state in chosen}
    return Steered(runs=tuple(changes)), changes


def _told(state: RunState, order: Order) -> dict[str, Any]:
    """Return what an order changes about a run: at once where it is not in flight, else it is to leave its slot."""
    by_user = {"cancelled_by_user": True} if order == "cancel" else {}
    if state.status in _IN_FLIGHT:
        return {"order": order, **by_user}
    return {"status": status_after(order), **by_user}


def status_after(order: Order | None) -> RunStatus:
    """Return what becomes of a run that has left its slot; one that had no order goes with its sweep."""
    if order == "pause":
        return "paused"
    return "queued" if order == "yield" else "cancelled"


def _who_yields(runs: Mapping[int, RunState], command: Command) -> int | None:
    """Return the least advanced training that can make room for an urgent run, which waits for a slot.

    None where enough trainings yield already, so that the command said twice has one effect.
    """
    assert command.run is not None
    urgent = runs[command.run]
    if not command.preempt or command.priority != "high" or urgent.has_slot or urgent.status == "paused":
        return None
    num_waiting = 1 + sum(is_urgent_without_slot(state) for state in runs.values() if state is not urgent)
    if sum(state.has_slot and state.order == "yield" for state in runs.values()) >= num_waiting:
        return None
    able = [
        index
        for index, state in runs.items()
        if state.has_slot and state.status == "training" and state.priority == "normal" and state.order is None
    ]
    known = [index for index in command.least_advanced if index in able]
    return next(iter([*known, *reversed(able)]), None)  # what the client has not seen began last


def waiting_to_displace(runs: Iterable[RunState]) -> list[int]:
    """Return the trainings that merely wait for a slot, and would be served before an urgent run that waits too."""
    states = list(runs)
    if not any(is_urgent_without_slot(state) for state in states):
        return []
    return [
        state.run.index
        for state in states
        if state.priority == "normal"
        and state.status in _BEFORE_ITS_SCORE
        and not state.has_slot
        and state.order is None
    ]


def still_training(runs: Iterable[RunState]) -> list[int]:
    """Return the runs that have or want a slot for their training, and have no order to leave."""
    return [state.run.index for state in runs if state.status in _BEFORE_ITS_SCORE and state.order is None]


def is_urgent_without_slot(state: RunState) -> bool:
    """Say whether the run is to have the next free slot; not while it prepares, which may wait for another sweep."""
    return (
        state.priority == "high"
        and state.status in ("queued", "training")
        and not state.has_slot
        and state.order is None
    )


# --- runs by their values ---------------------------------------------------------------------------------


def existing_values(runs: Iterable[RunState]) -> dict[str, list[str]]:
    """Return the values that runs were given on the command line or by a sweeper, by key, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for state in runs:
        for key, value in values_of(state).items():
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


def values_of(state: RunState) -> dict[str, str]:
    """Return a run's overridden values by key."""
    overridden = dict(item.split("=", 1) for item in state.run.overrides if "=" in item)
    return {key.lstrip("+"): value for key, value in {**overridden, **state.run.swept}.items()}


def _matching(runs: Iterable[RunState], where: Mapping[str, Sequence[str]]) -> list[RunState]:
    def matches(state: RunState) -> bool:
        own = values_of(state)
        return all(key in own and any(_is_same(own[key], value) for value in values) for key, values in where.items())

    return [state for state in runs if matches(state)]


def _is_same(value: str, other: str) -> bool:
    """Compare values as typed: `1e-3` is `0.001`, text is compared without quotes."""
    try:
        return float(value) == float(other)
    except ValueError:
        return value.strip("'\"") == other.strip("'\"")


def _listed(values: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{key}={','.join(found)}" for key, found in values.items()) or "none at all"


def _named(states: Iterable[RunState]) -> str:
    return ", ".join(f"{state.run.run_id} ({state.status})" for state in states)


def _one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
