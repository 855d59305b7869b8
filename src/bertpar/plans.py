"""A plan: what would become of a batch of runs, asked of a workflow, and how it is shown. Starts nothing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from bertpar.claims import Forecast
from bertpar.client import connect, web_ui
from bertpar.composing import Batch
from bertpar.errors import ERRORS, BertparError, ConnectionFailedError
from bertpar.paths import Home
from bertpar.render import duration, number
from bertpar.states import PlanInput, RunRef
from bertpar.store import Store
from bertpar.submit import run_refs, sweep_options
from bertpar.tables import Column, FittingTable
from bertpar.workflows.failures import describe_failure
from bertpar.workflows.plan import PlanWorkflow
from bertpar.workflows.records import run_name

_STYLES = {"new": "cyan", "cached": "green", "resume": "yellow", "duplicate": "dim"}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run, and what would become of it."""

    run: RunRef
    forecast: Forecast

    @property
    def why(self) -> str:
        forecast = self.forecast
        match forecast.verdict:
            case "cached":
                return f"computed by {forecast.origin}"
            case "resume":
                return f"from step {forecast.step} of {forecast.total_steps}, reached by {forecast.origin}"
            case "duplicate":
                return f"the same as {_without_plan(forecast.origin)}, which trains once for both"
        return _without_plan(forecast.reason)

    def as_json(self) -> dict[str, Any]:
        """Return the public form of one run of `bertpar plan --json`."""
        plain = asdict(self.forecast)
        del plain["run_id"], plain["held_by"]
        return {"index": self.run.index, "overrides": list(self.run.overrides), **plain, "why": self.why}


_PLAN_ID = "plan"


async def make_plan(batch: Batch, home: Home, say: Callable[[str], None]) -> list[PlannedRun]:
    """Return what would become of each run of the batch, were it submitted now.

    Raises:
        ConfigError, StoreError, ConnectionFailedError, StackError: as for a submission.
        BertparError: of the class with which the preparation of the data fails.
    """
    sweep = batch.sweep
    store = Store(sweep.store_root, home.cache)
    store.check_writable()
    client = await connect(sweep.temporal, home, on_wait=say)
    options = sweep_options(sweep, web_ui(sweep.temporal, home))
    refs = run_refs(_PLAN_ID, batch, store)
    try:
        found = await client.execute_workflow(
            PlanWorkflow.run,
            PlanInput(runs=tuple(refs), options=options),
            id=f"{_PLAN_ID}-{sweep.name}-{secrets.token_hex(4)}",
            task_queue=options.eval_queue,
            static_summary=f"plan of {len(refs)} runs",
        )
    except WorkflowFailureError as error:
        failure = describe_failure(error.cause)
        raise ERRORS.get(failure.error_type, BertparError)(failure.message) from error
    except RPCError as error:
        raise ConnectionFailedError(f"the plan could not be made: {error.message}") from error
    return [PlannedRun(run=ref, forecast=forecast) for ref, forecast in zip(refs, found, strict=True)]


def show_plan(planned: list[PlannedRun]) -> RenderableType:
    """Return the table of a plan, and what it comes to."""
    objective = planned[0].run.objective
    columns: tuple[Column[PlannedRun], ...] = (
        Column(title="#", cell=lambda p: str(p.run.index), leaves=4),
        Column(title="run", cell=lambda p: Text(run_name(p.run.swept, p.run.index)), left=True, wraps=True),
        Column(title="plan", cell=_verdict, left=True),
        Column(title=objective, cell=lambda p: number(p.forecast.metrics.get(objective)), leaves=2),
        Column(title="left", cell=_time_left, leaves=3),
        Column(title="why", cell=lambda p: Text(p.why), left=True, wraps=True),
    )
    return Group(FittingTable(columns=columns, rows=planned), Text(""), *map(Text, _totals(planned)))


def _totals(planned: list[PlannedRun]) -> list[str]:
    counts = {verdict: sum(p.forecast.verdict == verdict for p in planned) for verdict in _STYLES}
    told = ", ".join(f"{count} {verdict.upper()}" for verdict, count in counts.items() if count)
    seconds = [p.forecast.seconds for p in planned]
    known = [s for s in seconds if s is not None]
    unknown = len(seconds) - len(known)
    estimate = f"training that is left: about {duration(sum(known))}, one run after the other" if any(known) else ""
    if unknown:
        estimate += f"{'; and' if estimate else 'training that is left:'} {unknown} of which nothing like is known"
    lines = [f"{told}; nothing was started", estimate]
    if saved := sum(p.forecast.saved_seconds for p in planned):
        lines.append(f"training that need not be done again: {duration(saved)}")
    return [line for line in lines if line]


def _verdict(planned: PlannedRun) -> Text:
    return Text(planned.forecast.verdict.upper(), style=_STYLES[planned.forecast.verdict])


def _time_left(planned: PlannedRun) -> str:
    seconds = planned.forecast.seconds
    return "?" if seconds is None else "" if seconds == 0 else f"~{duration(seconds)}"


def _without_plan(text: str | None) -> str:
    """Name a run of the plan itself by its number."""
    return "" if text is None else text.replace(f"{_PLAN_ID}/", "run ")
