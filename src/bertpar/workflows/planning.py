"""What a sweep does next, and how its runs rank. Pure functions of the runs' states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from bertpar.events import Failure
from bertpar.states import TERMINAL, RunState
from bertpar.workflows.steering import is_urgent_without_slot

_MAX_ROWS = 50
"""Rows of the leaderboard: Temporal keeps it in the workflow task, so it must stay small."""

_NUM_ALIKE = 3
"""So many runs that fail alike, and none that does not, are no coincidence."""


def next_starts(runs: Iterable[RunState], limit: int) -> list[int]:
    """Return the indices of the queued runs to start now, in order, so that at most `limit` are in flight.

    While an urgent run has no slot, no other is started: workers do not serve their queue in order.
    """
    states = sorted(runs, key=lambda r: r.run.index)
    in_flight = sum(r.status not in ("queued", "paused", "reporting", *TERMINAL) for r in states)
    only_urgent = any(is_urgent_without_slot(r) for r in states)
    queued = [r.run.index for r in states if r.status == "queued" and (r.priority == "high" or not only_urgent)]
    return queued[: max(0, limit - in_flight)]


def common_failure(runs: Iterable[RunState]) -> Failure | None:
    """Return what the first runs of a sweep failed of, if all of them failed at the same place of the code.

    Such a failure lies in the code, not in a run: the runs that are still queued would most likely share it. None
    where fewer than three have ended, one of them well, or none is queued.
    """
    states = list(runs)
    ended = [r for r in states if r.status in ("completed", "failed", "reporting")]
    if len(ended) < _NUM_ALIKE or all(r.status != "queued" for r in states):
        return None
    failures = [r.failure for r in ended]
    first = failures[0]
    if first is None or first.traceback is None:
        return None
    places = {(f.error_type, f.traceback) if f else None for f in failures}
    return first if len(places) == 1 else None


def all_done(runs: Iterable[RunState]) -> bool:
    """Say whether every run has ended."""
    return all(r.status in TERMINAL for r in runs)


def sweep_outcome(runs: Iterable[RunState]) -> Literal["running", "completed", "failed", "cancelled"]:
    """Return `completed` only if every run completed, but for those that a user cancelled: `cancelled` if all were.

    A sweep without runs is `running` until it is closed.
    """
    states = list(runs)
    if not states or not all_done(states):
        return "running"
    wanted = [r for r in states if not (r.status == "cancelled" and r.cancelled_by_user)]
    if not wanted:
        return "cancelled"
    return "completed" if all(r.status == "completed" for r in wanted) else "failed"


def rank(runs: Iterable[RunState]) -> list[RunState]:
    """Return the runs best first by their objective on validation; those without one last, by index."""

    def key(state: RunState) -> tuple[bool, float, int]:
        value = state.metrics.get(state.run.objective)
        if value is None or value != value:
            return True, 0.0, state.run.index
        return False, value if state.run.mode == "min" else -value, state.run.index

    return sorted(runs, key=key)


def leaderboard(runs: Iterable[RunState]) -> str:
    """Return a Markdown table of the runs, best first."""
    states = rank(runs)
    if not states:
        return "no runs yet"
    objective = states[0].run.objective
    test = objective.replace("val/", "test/")
    lines = [_row(["run", "state", objective, test, "step"]), "|:--|:--|:--|:--|:--|"]
    for state in states[:_MAX_ROWS]:
        name = ", ".join(f"{k}={v}" for k, v in state.run.swept.items()) or " ".join(state.run.overrides)
        cells = [
            f"[{state.run.index}] {name}",
            _standing(state),
            _number(state.metrics.get(objective)),
            _number(state.metrics.get(test)),
            f"{state.step} of {state.total_steps}" if state.total_steps else "",
        ]
        lines.append(_row(cells))
    if len(states) > _MAX_ROWS:
        lines.append(f"\n{len(states) - _MAX_ROWS} more runs")
    return "\n".join(lines)


def _standing(state: RunState) -> str:
    by_user = " by a user" if state.status == "cancelled" and state.cancelled_by_user else ""
    urgent = ", urgent" if state.priority == "high" and state.status not in TERMINAL else ""
    attempt = f", attempt {state.attempt}" if state.attempt > 1 else ""
    return state.status + by_user + urgent + attempt


def _row(cells: Iterable[str]) -> str:
    padding = "\u00a0" * 4  # no-break spaces: Temporal's page leaves no room at all between columns
    return "| " + " | ".join(cell.replace("|", "\\|") + padding for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
