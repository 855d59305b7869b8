"""What a sweep's views say line by line: where there is no live table, and of failures beside one. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Set

from bertpar.events import Failure
from bertpar.observe import RunView, SweepView
from bertpar.render import paused_lines, stopping_lines
from bertpar.states import RunState


class PlainLog:
    """Says what has changed between two views: everything without a live table, failures alone beside one."""

    _STEPS_PER_LINE = 10
    """Progress lines a run prints on its way, at most about so many."""

    def __init__(self, beside_table: bool) -> None:
        self._beside_table = beside_table
        self._said: dict[int, set[str]] = {}
        self._said_of_sweep: set[str] = set()
        self._first_with: dict[str, int] = {}
        """The run with which a cause was said in full."""

    def news(self, view: SweepView, indices: Set[int] | None = None) -> list[str]:
        """Return the lines on the runs `indices` (None: all) that were not yet said.

        A cause that ends many runs is said in full once.
        """
        of_sweep = [*paused_lines(view), *stopping_lines(view)]
        lines = [line for line in of_sweep if line not in self._said_of_sweep]
        self._said_of_sweep.update(lines)
        for run in view.runs:
            index = run.state.run.index
            if indices is not None and index not in indices:
                continue
            said = self._said.setdefault(index, set())
            for key, line, cause in self._facts(run):
                if key not in said:
                    said.add(key)
                    lines.append(f"[{index}] {run.name}: {line}{self._told(cause, index)}")
        return lines

    def _told(self, cause: Failure | None, index: int) -> str:
        if cause is None:
            return ""
        full = str(cause)
        if full not in self._first_with:
            self._first_with[full] = index
            return f": {full}"
        first = self._first_with[full]
        return f": {cause.error_type}, " + ("as before" if first == index else f"as [{first}]")

    def _facts(self, run: RunView) -> Iterable[tuple[str, str, Failure | None]]:
        state = run.state
        for attempt in run.attempts:
            if attempt.cause is not None:
                yield f"attempt {attempt.number}", f"attempt {attempt.number} ended", attempt.cause
        if state.status == "failed" and state.failure is not None:
            yield "failed", "failed", state.failure
        for note in run.progress.notes if run.progress else ():
            yield f"note {note}", note, None
        if self._beside_table:
            return
        if state.origin is not None and not state.reused and state.status not in ("queued", "preparing"):
            yield "origin", f"goes on from a checkpoint of {state.origin}, which computes the same", None
        if state.status in ("training", "evaluating", "cancelled", "paused"):
            yield f"{run.status} {state.attempt}", f"{run.status}{_which_attempt(run)}", None
        if run.waiting:
            yield f"waiting {state.attempt} {run.waiting}", f"waits for {run.waiting}", None
        progress = run.progress
        if progress and progress.total_steps and progress.step:
            share = progress.step * self._STEPS_PER_LINE // progress.total_steps
            loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
            yield f"progress {share}", f"step {progress.step}/{progress.total_steps}{loss}", None
        if state.status == "completed":
            what = f"reused from {state.origin}" if state.reused else "completed"
            yield "completed", f"{what}, {_metrics(state)}", None


def _which_attempt(run: RunView) -> str:
    if not run.state.attempt:
        return ""
    again = run.attempts and run.attempts[-1].number > 1
    return f", attempt {run.state.attempt}" + (f", from step {run.attempts[-1].resumed_from_step}" if again else "")


def _metrics(state: RunState) -> str:
    shown = [key for key in (state.run.objective, state.run.objective.replace("val/", "test/")) if key in state.metrics]
    return ", ".join(f"{key} {state.metrics[key]:.4f}" for key in shown)
