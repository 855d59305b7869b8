"""Turns a view of a sweep into its live table and its ranking. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from bertpar.ledger import Ledger, ledger_of
from bertpar.observe import RunView, SweepView
from bertpar.pages import mlflow_page, temporal_page
from bertpar.states import TERMINAL, RunState
from bertpar.tables import Column, FittingTable
from bertpar.workflows.planning import rank

_STYLES = {
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "training": "cyan",
    "evaluating": "blue",
    "paused": "yellow",
}
_MAX_LIVE_ROWS = 30


def live_table(view: SweepView) -> RenderableType:
    """Return the table that is redrawn while the sweep runs."""
    runs = live_rows(view)
    counts = Text(f"runs: {count_statuses(view.runs)}", style="dim")
    counts.append(f"; compute time: {_sum_text(view)}")
    paused = [Text(line, style="bold yellow") for line in (*paused_lines(view), *stopping_lines(view))]
    troubles = [Text(f"[{run.state.run.index}] {line}") for run in runs for line in _troubles(run)]
    return Group(FittingTable(columns=live_columns(view), rows=runs), counts, *paused, *troubles)


def live_rows(view: SweepView) -> list[RunView]:
    """Return the runs to show while the sweep runs; of many those that move."""
    runs = sorted(view.runs, key=lambda r: r.state.run.index)
    if len(runs) > _MAX_LIVE_ROWS:
        runs = sorted(runs, key=lambda r: (r.state.status in TERMINAL, r.state.status == "queued"))[:_MAX_LIVE_ROWS]
    return runs


def live_columns(view: SweepView) -> tuple[Column[RunView], ...]:
    """Return what is shown of each run while the sweep runs."""
    return (
        Column(title="#", cell=_index, leaves=7),
        Column(title="run", cell=lambda r: Text(r.name), left=True, wraps=True),
        Column(title="state", cell=_status, left=True),
        Column(title="step", cell=_step),
        Column(title="", cell=_bar, left=True, leaves=2),
        Column(title="loss", cell=lambda r: number(r.progress.loss if r.progress else None), leaves=6),
        Column(title=_objective(view), cell=lambda r: number(r.state.metrics.get(r.state.run.objective))),
        Column(title="ckpt", cell=_checkpoint_step, leaves=3),
        Column(title="attempt", cell=_attempt, leaves=5),
        Column(title="ex/s", cell=_speed, leaves=1),
        Column(title="compute", cell=_compute, leaves=0),
        Column(title="left", cell=_time_left, leaves=4),
    )


def paused_lines(view: SweepView) -> list[str]:
    """Return what a sweep that has paused asks of its user; nothing for one that has not."""
    sweep = view.sweep
    if sweep.paused is None:
        return []
    goes_on = f"bertpar resume {sweep.sweep_id} (starts the rest all the same) or bertpar cancel {sweep.sweep_id}"
    return [f"paused: {sweep.paused}. Go on with {goes_on}"]


def stopping_lines(view: SweepView) -> list[str]:
    """Return why a sweep stops, or has stopped, before its runs are done, and how to go on; nothing for any other."""
    sweep = view.sweep
    is_cut = any(
        run.state.status not in ("completed", "failed") and not run.state.cancelled_by_user for run in view.runs
    )
    if sweep.out_of_budget is None or not is_cut:
        return []
    if sweep.status == "running":
        return [f"stopping: {sweep.out_of_budget}. Go on with bertpar set {sweep.sweep_id} budget.hours=..."]
    return [
        f"stopped: {sweep.out_of_budget}. The command that started it goes on from its checkpoints, with a budget anew"
    ]


def _troubles(run: RunView) -> list[str]:
    """Return what keeps a running attempt from going on, as far as it is known."""
    waiting = [f"waits for {run.waiting}"] if run.waiting else []
    silent = [f"no sign of life for {run.silent_seconds:.0f} s"] if run.silent_seconds is not None else []
    return waiting + silent


def _index(run: RunView) -> str:
    return str(run.state.run.index)


def _status(run: RunView) -> Text:
    state = run.state
    by_user = " by a user" if state.status == "cancelled" and state.cancelled_by_user else ""
    urgent = ", urgent" if state.priority == "high" and state.status not in TERMINAL else ""
    return Text(_shown_status(run) + by_user + urgent, style=_STYLES.get(state.status, "dim"))


def _shown_status(run: RunView) -> str:
    return "reused" if run.state.reused and run.status == "completed" else run.status


def _step(run: RunView) -> str:
    step, total = run.state.step, run.state.total_steps
    return f"{step}/{total}" if total else str(step or "")


def _bar(run: RunView) -> RenderableType:
    total = run.state.total_steps
    return ProgressBar(total=total, completed=run.state.step, width=16) if total else ""


def _attempt(run: RunView) -> str:
    return str(run.state.attempt or "")


def _speed(run: RunView) -> str:
    return f"{run.progress.examples_per_second:.0f}" if run.progress and run.progress.examples_per_second else ""


def _compute(run: RunView) -> str:
    """Return the compute time of a run, as far as there is any."""
    ledger = ledger_of([run.state])
    return "" if ledger == ledger_of([]) else ledger_text(ledger)


def ledger_text(ledger: Ledger) -> str:
    """Return compute time as `1:20`, or `1:20 (lost 0:12, saved 2:03)` where there is more to say."""
    parts = [("lost", ledger.lost_seconds), ("saved", ledger.saved_seconds)]
    told = [f"{word} {duration(seconds)}" for word, seconds in parts if round(seconds) > 0]
    return duration(ledger.spent_seconds) + (f" ({', '.join(told)})" if told else "")


def _sum_text(view: SweepView) -> str:
    hours = view.sweep.options.budget_hours
    return ledger_text(view.ledger()) + (f" of {duration(3600 * hours)}" if hours is not None else "")


def _checkpoint_step(run: RunView) -> str:
    if run.progress and run.progress.checkpoint_step is not None:
        return str(run.progress.checkpoint_step)
    return str(run.state.best.step) if run.state.best else ""


def _time_left(run: RunView) -> str:
    """Return the time that the remaining steps take at the present rate."""
    progress = run.progress
    if progress is None or not progress.seconds_per_step or run.state.status != "training":
        return ""
    return duration((progress.total_steps - progress.step) * progress.seconds_per_step)


def _objective(view: SweepView) -> str:
    return view.runs[0].state.run.objective if view.runs else "objective"


def count_statuses(runs: Iterable[RunView]) -> str:
    """Return how many runs are in which state: `1 completed, 3 training`."""
    counts: dict[str, int] = {}
    for run in runs:
        status = _shown_status(run)
        counts[status] = counts.get(status, 0) + 1
    return ", ".join(f"{number} {status}" for status, number in counts.items())


def causes(view: SweepView) -> list[str]:
    """Return one line for each distinct cause of failed runs, with the runs that it ended."""
    found: dict[str, list[int]] = {}
    for state in (run.state for run in view.runs):
        if state.status == "failed" and state.failure is not None:
            found.setdefault(str(state.failure), []).append(state.run.index)
    return [f"{' '.join(f'[{index}]' for index in indices)} failed: {cause}" for cause, indices in found.items()]


def final_report(view: SweepView, mlflow_ui: str | None, *, with_causes: bool = False) -> RenderableType:
    """Return the ranking, links, and why runs failed: in full, or the command that tells it.

    `mlflow_ui` is where MLflow's page is served now.
    """
    runs = ranked_rows(view)
    ranked = [run.state for run in runs]
    failed = any(state.failure for state in ranked if state.status == "failed")
    told = [Text(line) for line in causes(view)] if with_causes and failed else []
    links = _links(view, ranked, _mlflow_link(view, mlflow_ui), causes_elsewhere=failed and not with_causes)
    ranking = FittingTable(columns=ranking_columns(runs), rows=runs, header_style="bold")
    return Group(Text(""), ranking, Text(""), *told, *links)


def ranked_rows(view: SweepView) -> list[RunView]:
    """Return the runs, the best first."""
    runs = {run.state.run.index: run for run in view.runs}
    return [runs[state.run.index] for state in rank(run.state for run in view.runs)]


def ranking_columns(runs: Sequence[RunView]) -> tuple[Column[RunView], ...]:
    """Return what is shown of each of `runs`, which are in the order of their ranks."""
    objective = runs[0].state.run.objective if runs else "objective"
    places = {run.state.run.index: str(place) for place, run in enumerate(runs, start=1)}
    found = {key for run in runs for key in run.state.metrics if key.startswith("test/") and key != "test/loss"}
    tests = sorted(key for key in found if not key.endswith(("_low", "_high")))
    same = objective.replace("val/", "test/")  # the last of the scores to be left out
    leaving = {key: i for i, key in enumerate(sorted(tests, key=lambda key: (key == same, key)), start=3)}
    return (
        Column(title="rank", cell=lambda r: places[r.state.run.index] if r.status == "completed" else ""),
        Column(title="#", cell=_index, leaves=100),
        Column(title="run", cell=lambda r: Text(r.name), left=True, wraps=True),
        Column(title=objective, cell=lambda r: number(r.state.metrics.get(objective))),
        *(
            Column(title=key, cell=partial(_with_interval, key=key), leaves=place)
            for key, place in ((key, leaving[key]) for key in tests)
        ),
        Column(title="step", cell=_step, leaves=2),
        Column(title="attempt", cell=_attempt, leaves=1),
        Column(title="compute", cell=_compute, leaves=0),
        Column(title="state", cell=_status, left=True),
    )


def _with_interval(run: RunView, key: str) -> str:
    state = run.state
    low, high = state.metrics.get(f"{key}_low"), state.metrics.get(f"{key}_high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return number(state.metrics.get(key)) + interval


def _links(view: SweepView, ranked: Sequence[RunState], mlflow_link: str, *, causes_elsewhere: bool) -> list[Text]:
    sweep = view.sweep
    lines = [f"sweep {sweep.sweep_id} {sweep.status}"]
    if causes_elsewhere:  # told when it came, perhaps long ago
        lines.append(f"  causes:   bertpar status {sweep.sweep_id}")
    if sweep.options.temporal_ui:
        lines.append(f"  Temporal: {temporal_page(sweep.options.temporal_ui, sweep.sweep_id)}")
    lines.append(f"  MLflow:   {mlflow_link}")
    if any(state.reused for state in ranked):
        num_reused = sum(state.reused for state in ranked)
        lines.append(f"  reused:   {num_reused} of {len(ranked)} runs were computed before (cache=off computes anew)")
    lines.append(f"  compute:  {_sum_text(view)}")
    lines += [f"  {line}" for line in stopping_lines(view)]
    best = next((s for s in ranked if s.status == "completed"), None)
    if best is not None:
        lines.append(f'  predict:  bertpar predict {best.run.run_id} --text "..."')
    return [Text(line) for line in lines]


def _mlflow_link(view: SweepView, mlflow_ui: str | None) -> str:
    if mlflow_ui is not None:
        return mlflow_page(view.sweep, view.mlflow_run_ids(), mlflow_ui)
    return f"bertpar ui {view.sweep.sweep_id}   (starts MLflow's page)"


def duration(seconds: float) -> str:
    """Return a time as h:mm:ss, or m:ss below an hour."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def number(value: float | None) -> str:
    """Return a metric with four decimals, or nothing."""
    return "" if value is None else f"{value:.4f}"
