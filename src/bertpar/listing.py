"""The sweeps that a Temporal namespace knows, newest first."""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(frozen=True)
class SweepChain:
    """The executions of one sweep, as far as a list shows them."""

    executions: tuple[WorkflowExecution, ...]

    @property
    def sweep_id(self) -> str:
        return self.executions[0].id

    @property
    def started_at(self) -> datetime:
        return min(execution.start_time for execution in self.executions)

    @property
    def last(self) -> WorkflowExecution:
        return max(self.executions, key=lambda execution: execution.start_time)

    @property
    def is_live(self) -> bool:
        """Whether something of the sweep may still be done."""
        return _STATUSES.get(self.last.status or WorkflowExecutionStatus.RUNNING) == "running"


async def list_chains(client: Client) -> list[SweepChain]:
    """Return all sweeps, the newest first.

    All are asked for: the server lists by the time of their ends, and a long sweep is a chain of executions.
    """
    executions: dict[str, list[WorkflowExecution]] = {}
    async for execution in client.list_workflows(_SWEEPS):
        executions.setdefault(execution.id, []).append(execution)
    chains = [SweepChain(tuple(chain)) for chain in executions.values()]
    return sorted(chains, key=lambda chain: chain.started_at, reverse=True)


async def describe_chains(client: Client, chains: Iterable[SweepChain]) -> list[SweepEntry]:
    """Return what a list tells of each sweep; of a completed one that costs a question to the server."""
    return [await _entry(client, chain) for chain in chains]


async def list_sweeps(client: Client, limit: int) -> list[SweepEntry]:
    """Return the `limit` sweeps that were started last."""
    return await describe_chains(client, (await list_chains(client))[:limit])


async def _entry(client: Client, chain: SweepChain) -> SweepEntry:
    last = chain.last
    status, num_runs = "failed", None
    if last.status is WorkflowExecutionStatus.COMPLETED:  # the workflow; its result says whether every run did
        handle = client.get_workflow_handle_for(CoordinatorWorkflow.run, last.id, run_id=last.run_id)
        summary = await handle.result()
        status, num_runs = summary.status, summary.num_runs
    elif last.status is not None:
        status = _STATUSES.get(last.status, "failed")
    return SweepEntry(sweep_id=last.id, status=status, started_at=chain.started_at, num_runs=num_runs)
