"""A sweep whose compute time is limited ends by itself when that is used up, and leaves checkpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError

from bertpar import steer
from bertpar.errors import RefusedError
from bertpar.events import TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.render import stopping_lines
from bertpar.states import RunBatch, SweepStatus, SweepSummary
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, Sweep, checkpoint, running_sweep, save, trained, until

SECOND = 1 / 3600
"""In hours."""


@dataclass
class Trainings:
    """Trainings that go on until they are told to leave, or may end; they leave when they may."""

    seconds: float | None = None
    """For how long they claim to have held their slots; None where they do not say."""
    may_leave: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: int = 0

    async def train(self, job: TrainJob) -> TrainResult:
        try:
            while not self.may_end.is_set():
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.leaving += 1
            await self.may_leave.wait()
            await save(job, checkpoint(job, 5))
            raise ApplicationError("left in order", None, 6, self.seconds, type="PreemptedError") from None
        return replace(trained(job, checkpoint(job, 100)), train_seconds=self.seconds or 0.0)


async def begin(sweep: Sweep, num_runs: int) -> WorkflowHandle[CoordinatorWorkflow, SweepSummary]:
    handle = await sweep.start()
    runs = tuple(sweep.ref(index) for index in range(num_runs))
    await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
    return handle


async def status_of(handle: WorkflowHandle[CoordinatorWorkflow, SweepSummary]) -> SweepStatus:
    return await handle.query(CoordinatorWorkflow.status)


async def test_a_sweep_ends_when_its_budget_is_used_up_with_a_checkpoint_of_each_training(client: Client) -> None:
    trainings = Trainings()
    trainings.may_leave.set()
    script = Script(train=trainings.train)
    async with running_sweep(client, script, max_parallel=2, budget_hours=2 * SECOND) as sweep:
        handle = await begin(sweep, 3)
        assert (await handle.result()).status == "cancelled"
        view = await observe(client, sweep.sweep_id)
        with pytest.raises(RefusedError, match="has ended: cancelled, since its budget of .* is used up"):
            await steer.retry(client, f"{sweep.sweep_id}/0", print)
    runs = view.sweep.runs
    assert [(r.status, r.step, r.attempt) for r in runs] == [
        ("cancelled", 5, 1),
        ("cancelled", 5, 1),
        ("cancelled", 0, 0),
    ]
    assert not any(r.cancelled_by_user for r in runs)
    assert view.ledger().spent_seconds >= 2.0
    assert [line.partition(":")[0] for line in stopping_lines(view)] == ["stopped"]
    assert script.closed == {f"{sweep.sweep_id}/0": "KILLED", f"{sweep.sweep_id}/1": "KILLED", sweep.sweep_id: "KILLED"}


async def test_a_sweep_that_is_done_within_its_budget_notices_nothing_of_it(client: Client) -> None:
    async with running_sweep(client, Script(), budget_hours=1.0) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert (status.status, status.out_of_budget) == ("completed", None)


async def test_while_it_stops_more_work_is_refused_until_the_budget_is_raised(client: Client) -> None:
    trainings = Trainings()
    async with running_sweep(client, Script(train=trainings.train), max_parallel=1, budget_hours=SECOND) as sweep:
        handle = await begin(sweep, 2)
        await until(lambda: trainings.leaving == 1)
        for refused in (
            steer.resume(client, sweep.sweep_id, print),
            steer.update(client, sweep.sweep_id, CoordinatorWorkflow.extend, (replace(sweep.ref(2)),), print),
        ):
            with pytest.raises(RefusedError, match=r"is used up. Raise it first: bertpar set .* budget.hours="):
                await refused
        with pytest.raises(RefusedError, match="is spent already"):
            await steer.set_option(client, sweep.sweep_id, f"budget.hours={SECOND}", print)
        trainings.may_end.set()
        await steer.set_option(client, sweep.sweep_id, "budget.hours=1", print)
        trainings.may_leave.set()
        await handle.result()
        status = await status_of(handle)
    assert [r.status for r in status.runs] == ["completed", "completed"]
    assert [r.attempt for r in status.runs] == [2, 1]
    assert (status.options.budget_hours, status.out_of_budget) == (1.0, None)


async def test_a_budget_can_be_lowered_on_the_way(client: Client) -> None:
    trainings = Trainings()
    trainings.may_leave.set()
    async with running_sweep(client, Script(train=trainings.train), budget_hours=1.0) as sweep:
        handle = await begin(sweep, 1)
        async with asyncio.timeout(20):
            while not (await status_of(handle)).runs[0].has_slot:
                await asyncio.sleep(0.05)
        await steer.set_option(client, sweep.sweep_id, f"budget.hours={5 * SECOND}", print)
        assert (await handle.result()).status == "cancelled"


async def test_time_that_only_seemed_to_be_spent_is_given_back(client: Client) -> None:
    """A machine that was off: the clock went on, the attempt did not."""
    trainings = Trainings(seconds=0.01)
    async with running_sweep(client, Script(train=trainings.train), budget_hours=SECOND) as sweep:
        handle = await begin(sweep, 1)
        await until(lambda: trainings.leaving == 1)
        trainings.may_end.set()
        trainings.may_leave.set()
        await handle.result()
        status = await status_of(handle)
    assert (status.status, status.runs[0].attempt, status.runs[0].spent_seconds) == ("completed", 2, 0.02)
