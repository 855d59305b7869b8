"""Turns a view of a sweep into what is printed. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Set

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bertpar.events import TERMINAL, Failure, RunState
from bertpar.observe import RunView, SweepView
from bertpar.pages import mlflow_page, temporal_page
from bertpar.workflows.planning import rank

_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "training": "cyan",
    "evaluating": "blue",
}
_MAX_LIVE_ROWS = 30


def live_table(view: SweepView) -> RenderableType:
    """Return the table that is redrawn while the sweep runs; of many runs those that move come first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, justify in (
        ("#", "right"), ("run", "left"), ("state", "left"), ("step", "right"), ("", "left"), ("loss", "right"),
        (_objective(view), "right"), ("ckpt", "right"), ("attempt", "right"), ("ex/s", "right"), ("left", "right"),
    ):  # fmt: skip
        table.add_column(title, justify="right" if justify == "right" else "left", no_wrap=title not in ("run",))
    runs = sorted(view.runs, key=lambda r: r.state.run.index)
    if len(runs) > _MAX_LIVE_ROWS:
        runs = sorted(runs, key=lambda r: (r.state.status in TERMINAL, r.state.status == "queued"))[:_MAX_LIVE_ROWS]
    for run in runs:
        table.add_row(*_cells(run))
    counts = Text(_counts(view.runs), style="dim")
    paused = [Text(line, style="bold yellow") for line in paused_lines(view)]
    return Group(
        table, counts, *paused, *(Text(f"[{run.state.run.index}] {line}") for run in runs for line in _troubles(run))
    )


def paused_lines(view: SweepView) -> list[str]:
    """Return what a sweep that has paused asks of its user; nothing for one that has not."""
    sweep = view.sweep
    if sweep.paused is None:
        return []
    goes_on = f"bertpar resume {sweep.sweep_id} (starts the rest all the same) or bertpar cancel {sweep.sweep_id}"
    return [f"paused: {sweep.paused}. Go on with {goes_on}"]


def _troubles(run: RunView) -> list[str]:
    """Return what keeps a running attempt from going on, as far as it is known."""
    waiting = [f"waits for {run.waiting}"] if run.waiting else []
    silent = [f"no sign of life for {run.silent_seconds:.0f} s"] if run.silent_seconds is not None else []
    return waiting + silent


def _cells(run: RunView) -> list[RenderableType]:
    state, progress = run.state, run.progress
    total = state.total_steps
    return [
        str(state.run.index),
        run.name,
        Text(run.status, style=_STYLES.get(state.status, "dim")),
        f"{state.step}/{total}" if total else "",
        ProgressBar(total=total or 1, completed=state.step, width=16) if total else "",
        f"{progress.loss:.4f}" if progress and progress.loss is not None else "",
        number(state.metrics.get(state.run.objective)),
        _checkpoint_step(run),
        str(state.attempt or ""),
        f"{progress.examples_per_second:.0f}" if progress and progress.examples_per_second else "",
        _time_left(run),
    ]


def _checkpoint_step(run: RunView) -> str:
    if run.progress and run.progress.checkpoint_step is not None:
        return str(run.progress.checkpoint_step)
    return str(run.state.best.step) if run.state.best else ""


def _time_left(run: RunView) -> str:
    """Return the time that the remaining steps take at the present rate."""
    progress = run.progress
    if progress is None or not progress.seconds_per_step or run.state.status != "training":
        return ""
    seconds = int((progress.total_steps - progress.step) * progress.seconds_per_step)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def _objective(view: SweepView) -> str:
    return view.runs[0].state.run.objective if view.runs else "objective"


def _counts(runs: Iterable[RunView]) -> str:
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.status] = counts.get(run.status, 0) + 1
    return ", ".join(f"{number} {status}" for status, number in counts.items())


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
        lines = [line for line in paused_lines(view) if line not in self._said_of_sweep]
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
        full = _told_in_full(cause)
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
        if state.status in ("training", "evaluating", "cancelled"):
            attempt_number = f", attempt {state.attempt}" if state.attempt else ""
            yield f"{run.status} {state.attempt}", f"{run.status}{attempt_number}", None
        if run.waiting:
            yield f"waiting {state.attempt} {run.waiting}", f"waits for {run.waiting}", None
        progress = run.progress
        if progress and progress.total_steps and progress.step:
            share = progress.step * self._STEPS_PER_LINE // progress.total_steps
            loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
            yield f"progress {share}", f"step {progress.step}/{progress.total_steps}{loss}", None
        if state.status == "completed":
            yield "completed", f"completed, {_metrics(state)}", None


def causes(view: SweepView) -> list[str]:
    """Return one line for each distinct cause of failed runs, with the runs that it ended."""
    found: dict[str, list[int]] = {}
    for state in (run.state for run in view.runs):
        if state.status == "failed" and state.failure is not None:
            found.setdefault(_told_in_full(state.failure), []).append(state.run.index)
    return [f"{' '.join(f'[{index}]' for index in indices)} failed: {cause}" for cause, indices in found.items()]


def _told_in_full(failure: Failure) -> str:
    return f"{failure.error_type}: {failure.message}"


def final_report(view: SweepView, indices: Set[int] | None, mlflow_ui: str | None) -> RenderableType:
    """Return the ranking and the links. `mlflow_ui` is where MLflow's page is served now."""
    states = [r.state for r in view.runs if indices is None or r.state.run.index in indices]
    names = {r.state.run.index: r.name for r in view.runs}
    table = Table(box=None, pad_edge=False, header_style="bold", title=None)
    objective = _objective(view)
    tests = sorted({key for s in states for key in s.metrics if key.startswith("test/") and key != "test/loss"})
    tests = [key for key in tests if not key.endswith(("_low", "_high"))]
    table.add_column("rank", justify="right")
    table.add_column("run")
    table.add_column(objective, justify="right")
    for key in tests:
        table.add_column(key, justify="right", no_wrap=True)
    table.add_column("state")
    for position, state in enumerate(rank(states), start=1):
        done = state.status == "completed"
        table.add_row(
            str(position) if done else "",
            names[state.run.index],
            number(state.metrics.get(objective)),
            *(_with_interval(state, key) for key in tests),
            Text(state.status, style=_STYLES.get(state.status, "")),
        )
    return Group(Text(""), table, Text(""), *_links(view, states, _mlflow_link(view, indices, mlflow_ui)))


def _with_interval(state: RunState, key: str) -> str:
    low, high = state.metrics.get(f"{key}_low"), state.metrics.get(f"{key}_high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return number(state.metrics.get(key)) + interval


def _links(view: SweepView, states: list[RunState], mlflow_link: str) -> list[Text]:
    sweep = view.sweep
    lines = [f"sweep {sweep.sweep_id} {sweep.status}"]
    if any(state.failure for state in states if state.status == "failed"):  # told when it came, perhaps long ago
        lines.append(f"  causes:   bertpar status {sweep.sweep_id}")
    if sweep.options.temporal_ui:
        lines.append(f"  Temporal: {temporal_page(sweep.options.temporal_ui, sweep.sweep_id)}")
    lines.append(f"  MLflow:   {mlflow_link}")
    best = next((s for s in rank(states) if s.status == "completed"), None)
    if best is not None:
        lines.append(f'  predict:  bertpar predict {best.run.run_id} --text "..."')
    return [Text(line) for line in lines]


def _mlflow_link(view: SweepView, indices: Set[int] | None, mlflow_ui: str | None) -> str:
    ids = view.mlflow_run_ids(indices)
    if mlflow_ui is not None:
        return mlflow_page(view.sweep, ids, mlflow_ui)
    return f"bertpar ui {view.sweep.sweep_id}   (starts MLflow's page)"


def _metrics(state: RunState) -> str:
    shown = [key for key in (state.run.objective, state.run.objective.replace("val/", "test/")) if key in state.metrics]
    return ", ".join(f"{key} {state.metrics[key]:.4f}" for key in shown)


def number(value: float | None) -> str:
    """Return a metric with four decimals, or nothing."""
    return "" if value is None else f"{value:.4f}"
