"""Steers a live sweep: pause, resume, cancel, drop, retry, priorities, settings. Every command is an update.

An update that is accepted is in the sweep's history: it takes effect whatever dies next. `extending.py` adds runs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from bertpar.answers import query, unknown_sweep
from bertpar.errors import ConfigError, NotFoundError, RefusedError
from bertpar.naming import split_run
from bertpar.observe import RunView, observe
from bertpar.states import Command, Priority, Steered, SweepStatus
from bertpar.workflows.coordinator import CoordinatorWorkflow

T = TypeVar("T")

Say = Callable[[str], None]

_SECONDS_UNTIL_SAID = 5.0
SETTINGS: dict[str, Literal["max_parallel", "budget_hours"]] = {
    "max_parallel": "max_parallel",
    "budget.hours": "budget_hours",
}
"""What can be changed of a live sweep, by the names that users give it."""


async def pause(client: Client, name: str, say: Say) -> Steered:
    """Pause a sweep, or a run: what trains makes a checkpoint at its next step and leaves its slot.

    Raises (as every function here):
        NotFoundError: no such sweep or run.
        RefusedError: the sweep has ended, or its state or the run's does not allow it; the message names it.
        RPCError: the server or the evaluation worker does not answer.
    """
    sweep_id, run = _parts(name)
    return await steer(client, sweep_id, Command(kind="pause", run=run), say)


async def resume(client: Client, name: str, say: Say) -> Steered:
    """Let a paused run go on, from its checkpoint; for a sweep all of its paused runs."""
    sweep_id, run = _parts(name)
    return await steer(client, sweep_id, Command(kind="resume", run=run), say)


async def cancel_run(client: Client, run_id: str, say: Say) -> Steered:
    """Cancel one run of a sweep; what trains leaves a checkpoint."""
    sweep_id, run = _run(run_id)
    return await steer(client, sweep_id, Command(kind="cancel", run=run), say)


async def cancel_sweep(client: Client, sweep_id: str) -> bool:
    """Cancel a sweep: the last word, whatever else was asked of it. Return False where it has ended already."""
    handle = await _coordinator(client, sweep_id)
    running = (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
    if running:
        await handle.cancel()
    return running


async def drop(client: Client, sweep_id: str, criteria: Sequence[str], say: Say) -> Steered:
    """Cancel the runs, of those not done yet, whose values match all criteria: `lr=1e-3`, `seed=1,2`.

    Raises:
        ConfigError: a criterion is not KEY=VALUE.
    """
    where: dict[str, tuple[str, ...]] = {}
    for criterion in criteria:
        key, is_assignment, values = criterion.partition("=")
        if not is_assignment or not key or not values:
            raise ConfigError(f"{criterion} is no condition: give KEY=VALUE, for example lr=1e-3 or seed=1,2")
        if key in where:
            raise ConfigError(
                f"{key} is given twice: give all its values at once, {key}={','.join(where[key])},{values}"
            )
        where[key] = tuple(value.strip() for value in values.split(","))
    return await steer(client, sweep_id, Command(kind="drop", where=where), say)


async def retry(client: Client, run_id: str, say: Say) -> Steered:
    """Queue a failed or cancelled run of a live sweep again; it goes on from its checkpoint."""
    sweep_id, run = _run(run_id)
    return await steer(client, sweep_id, Command(kind="retry", run=run), say)


async def prioritize(client: Client, run_id: str, priority: Priority, say: Say, *, preempt: bool = False) -> Steered:
    """Have an urgent run (`high`) take the next free slot; `preempt` makes one free at once."""
    sweep_id, run = _run(run_id)
    command = Command(kind="priority", run=run, priority=priority)
    if preempt:
        view = await observe(client, sweep_id)
        training = sorted((r for r in view.runs if r.status == "training"), key=_advance)
        least_advanced = tuple(r.state.run.index for r in training)
        command = Command(kind="priority", run=run, priority=priority, preempt=True, least_advanced=least_advanced)
    return await steer(client, sweep_id, command, say)


def _advance(run: RunView) -> float:
    return run.state.step / run.state.total_steps if run.state.total_steps else 0.0


async def set_option(client: Client, sweep_id: str, assignment: str, say: Say) -> Steered:
    """Change how a live sweep is run: `max_parallel=4`, `budget.hours=8`; `null` for no limit.

    Raises:
        ConfigError: another key, or a value that is not allowed.
    """
    key, is_assignment, value = assignment.partition("=")
    key = key.removeprefix("sweep.")
    if not is_assignment:
        raise ConfigError(f"{assignment} is no setting: give KEY=VALUE, for example max_parallel=4")
    if key not in SETTINGS:
        raise ConfigError(f"{key} cannot be changed while the sweep runs; what can: {', '.join(SETTINGS)}")
    if SETTINGS[key] == "budget_hours":
        return await steer(
            client, sweep_id, Command(kind="set", setting="budget_hours", budget_hours=_hours(value)), say
        )
    if value != "null" and not (value.isdecimal() and int(value) >= 1):
        raise ConfigError(
            f"max_parallel={value} must be a whole number >= 1, or null for as many as workers have slots"
        )
    max_parallel = None if value == "null" else int(value)
    return await steer(client, sweep_id, Command(kind="set", max_parallel=max_parallel), say)


def _hours(value: str) -> float | None:
    try:
        hours = None if value == "null" else float(value)
    except ValueError:
        hours = math.nan
    if hours is not None and not 0 < hours < math.inf:
        raise ConfigError(f"budget.hours={value} must be a number > 0, or null for no limit")
    return hours


def _parts(name: str) -> tuple[str, int | None]:
    """Return the sweep, and the index of the run where `name` is SWEEP/INDEX."""
    return split_run(name) or (name, None)


def _run(run_id: str) -> tuple[str, int]:
    """Return the sweep and the index of the run SWEEP/INDEX."""
    parts = split_run(run_id)
    if parts is None:
        raise NotFoundError(f"{run_id} is no run: give SWEEP/INDEX, for example {run_id}/0; `bertpar ls` lists sweeps")
    return parts


# --- updates ----------------------------------------------------------------------------------------------


async def steer(client: Client, sweep_id: str, command: Command, say: Say) -> Steered:
    """Have the sweep carry out `command`."""
    return await update(client, sweep_id, CoordinatorWorkflow.steer, command, say)


async def update(client: Client, sweep_id: str, change: Any, payload: Any, say: Say) -> Steered:
    """Return the answer to an update of a sweep that runs; say so where no worker takes it up."""
    handle = await _coordinator(client, sweep_id)
    answer: asyncio.Future[Steered] = asyncio.ensure_future(handle.execute_update(change, payload, result_type=Steered))
    await asyncio.wait({answer}, timeout=_SECONDS_UNTIL_SAID)
    if not answer.done():
        say("waiting for a worker on the sweep's evaluation queue: bertpar status; on a cluster: bertpar worker eval")
    try:
        return await answer
    except WorkflowUpdateFailedError as error:
        raise RefusedError(str(error.cause)) from error
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        if (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:  # it has just continued as new
            return await update(client, sweep_id, change, payload, say)
        raise over(await query(client, sweep_id, CoordinatorWorkflow.status)) from error


async def _coordinator(client: Client, sweep_id: str) -> WorkflowHandle[Any, Any]:
    handle = client.get_workflow_handle(sweep_id)
    try:
        described = await handle.describe()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise unknown_sweep(sweep_id) from error
    if described.workflow_type != "CoordinatorWorkflow":
        raise NotFoundError(f"{sweep_id} is a part of a sweep; `bertpar ls` lists the sweeps, which can be steered")
    return handle


def over(sweep: SweepStatus) -> RefusedError:
    """Return the error for a command on a sweep that has ended."""
    how: str = "ended by others" if sweep.status == "running" else sweep.status  # terminated, it could not know
    if sweep.status == "cancelled" and sweep.out_of_budget is not None:
        how += f", since {sweep.out_of_budget}"
    return RefusedError(
        f"sweep {sweep.sweep_id} has ended: {how}. Only a sweep that runs takes commands; to go on, run the command "
        "that started it again, with whatever should be different"
    )
