"""Who uses what lies in a store right now, by Temporal: the sweeps and predictions that are running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

SweepUse = Literal["live", "ended", "unknown"]
"""`unknown`: Temporal has forgotten the sweep, or it is another Temporal's."""

_QUESTIONS_AT_ONCE = 16
_PREDICTION = "InferenceWorkflow"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was running at one moment."""

    sweeps: dict[str, SweepUse]
    predicting_runs: frozenset[str]
    predictions: frozenset[str]
    """Folder names below `predictions/`."""

    @property
    def live_sweeps(self) -> list[str]:
        return sorted(sweep_id for sweep_id, use in self.sweeps.items() if use == "live")

    def why_busy(self, run_id: str, *, take_unknown: bool) -> str | None:
        """Return why nothing of a run may be deleted; None if it may."""
        sweep_id = run_id.partition("/")[0]
        use = self.sweeps.get(sweep_id, "live")  # it was not there when the store was listed: it has just begun
        if use == "live":
            return f"sweep {sweep_id} is running"
        if use == "unknown" and not take_unknown:
            return (
                f"this Temporal does not know sweep {sweep_id}, which may be another's (--unknown takes it for ended)"
            )
        return "a prediction with it is running" if run_id in self.predicting_runs else None


async def ask_usage(client: Client, sweep_ids: Iterable[str]) -> Usage:
    """Return what is running: all that a list of running workflows tells, and for sure of each of `sweep_ids`.

    Lists lag behind by a moment on a cluster; a question after a single workflow does not.

    Raises:
        RPCError: the server does not answer.
    """
    sweeps: dict[str, SweepUse] = {}
    predicting_runs, predictions = set(), set()
    async for workflow in client.list_workflows("ExecutionStatus = 'Running'"):
        if workflow.workflow_type == _PREDICTION:
            run_id, _, prediction = workflow.id.rpartition("/")
            predicting_runs.add(run_id)
            predictions.add(prediction)
        else:  # a sweep, or a training or evaluation of it
            sweeps[workflow.id.partition("/")[0]] = "live"
    gate = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def ask(sweep_id: str) -> None:
        async with gate:
            sweeps[sweep_id] = await _use_of(client, sweep_id)

    await asyncio.gather(*(ask(sweep_id) for sweep_id in sweep_ids if sweep_id not in sweeps))
    return Usage(sweeps=sweeps, predicting_runs=frozenset(predicting_runs), predictions=frozenset(predictions))


async def _use_of(client: Client, sweep_id: str) -> SweepUse:
    try:
        described = await client.get_workflow_handle(sweep_id).describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return "unknown"
    return "live" if described.status is WorkflowExecutionStatus.RUNNING else "ended"
