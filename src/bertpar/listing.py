"""The sweeps that a Temporal namespace knows, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from bertpar.workflows.coordinator import CoordinatorWorkflow

_SWEEPS = "WorkflowType = 'CoordinatorWorkflow'"

_STATUSES = {
    WorkflowExecutionStatus.RUNNING: "running",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "running",  # its next execution is not yet listed
    WorkflowExecutionStatus.CANCELED: "cancelled",
}
"""Of what ended in any other way than by itself, the rest is `failed`, as everywhere."""


@dataclass(frozen=True, kw_only=True)
class SweepEntry:
    """One sweep in the list."""

    sweep_id: str
    status: str
    started_at: datetime
    num_runs: int | None
    """None where only the sweep itself could tell: one that runs, or was ended by others."""

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar ls --json`."""
        return {
            "sweep_id": self.sweep_id,
            "status": self.status,
            "started": self.started_at.isoformat(),
            "runs": self.num_runs,
        }


async def list_sweeps(client: Client, limit: int) -> list[SweepEntry]:
    """Return the `limit` sweeps that were started last.

    All are asked for: the server lists by the time of their ends, and a long sweep is a chain of executions.
    """
    chains: dict[str, list[WorkflowExecution]] = {}
    async for execution in client.list_workflows(_SWEEPS):
        chains.setdefault(execution.id, []).append(execution)
    newest = sorted(chains.values(), key=_started_at, reverse=True)[:limit]
    return [await _entry(client, chain) for chain in newest]


def _started_at(chain: Sequence[WorkflowExecution]) -> datetime:
    return min(execution.start_time for execution in chain)


async def _entry(client: Client, chain: Sequence[WorkflowExecution]) -> SweepEntry:
    last = max(chain, key=lambda execution: execution.start_time)
    status, num_runs = "failed", None
    if last.status is WorkflowExecutionStatus.COMPLETED:  # the workflow; its result says whether every run did
        handle = client.get_workflow_handle_for(CoordinatorWorkflow.run, last.id, run_id=last.run_id)
        summary = await handle.result()
        status, num_runs = summary.status, summary.num_runs
    elif last.status is not None:
        status = _STATUSES.get(last.status, "failed")
    return SweepEntry(sweep_id=last.id, status=status, started_at=_started_at(chain), num_runs=num_runs)
