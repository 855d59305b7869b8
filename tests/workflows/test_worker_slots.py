"""A training worker of a real Temporal server takes the runs that it can carry, and leaves the others to others."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from bertpar.activities import _slot
from bertpar.activities._job import heartbeats
from bertpar.capacity import capacity_of
from bertpar.events import TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.slots import Slots
from bertpar.spec import Demand
from bertpar.states import Command, RunBatch
from bertpar.why import explain_run
from bertpar.worker import make_worker
from bertpar.workflows import CoordinatorWorkflow
from tests.stack.lingering import Lingering, Slow
from tests.workflows.conftest import Script, at_rest, running_sweep, train_at_once, trained, until
from tests.workflows.conftest import checkpoint as checkpoint_of

LARGE, SMALL = Demand(num_threads=2), Demand()


class Host:
    """A worker whose activities take what they want of its slots, and end when they are let."""

    def __init__(self, client: Client, queue: str, wanted: Callable[[str], Demand]) -> None:
        self.slots = Slots(capacity_of(2, num_cpus=2))
        self.running: list[str] = []
        self.arrived: list[str] = []
        self.may_end = asyncio.Event()

        @activity.defn
        async def linger(work: Slow) -> str:
            name = activity.info().workflow_id
            self.arrived.append(name)
            granted = await self.slots.take(wanted(name))
            self.running.append(name)
            await self.may_end.wait()
            self.running.remove(name)
            self.slots.give_back(granted)
            return name

        self.worker: Worker = make_worker(
            "training",
            client,
            queue=queue,
            num_slots=2,
            slots=self.slots,
            grace=timedelta(0),
            workflows=[],
            activities=[linger],
        )


async def start(client: Client, queue: str, *names: str) -> list[WorkflowHandle[Lingering, str]]:
    work = Slow(duration=timedelta(0), queue=queue)
    return [
        await client.start_workflow(Lingering.run, work, id=name, task_queue=f"{queue}-workflows") for name in names
    ]


async def end(*handles: WorkflowHandle[Lingering, str]) -> None:
    await asyncio.gather(*(handle.result() for handle in handles))


async def test_large_runs_spread_over_the_workers_and_none_waits_where_another_is_idle(client: Client) -> None:
    queue = uuid.uuid4().hex
    address = client.service_client.config.target_host
    # the SDK takes one worker of a queue for each client
    one, other = [
        Host(await Client.connect(address, data_converter=client.data_converter), queue, lambda name: LARGE)
        for _ in range(2)
    ]
    workflows = make_worker(
        "eval", client, queue=f"{queue}-workflows", num_slots=1, workflows=[Lingering], activities=[]
    )
    async with workflows, one.worker, other.worker:
        handles = await start(client, queue, *(f"{queue}/{i}" for i in range(4)))
        await until(lambda: len(one.running) == len(other.running) == 1)
        assert (len(one.arrived), len(other.arrived)) == (1, 1)  # the others wait in the queue, for whoever is free
        one.may_end.set()
        await until(lambda: len(one.arrived) == 3)
        other.may_end.set()
        await end(*handles)


async def test_small_runs_fill_a_worker_and_a_large_one_has_its_turn_before_those_behind_it(client: Client) -> None:
    queue = uuid.uuid4().hex
    host = Host(client, queue, lambda name: LARGE if name.endswith("large") else SMALL)
    workflows = make_worker(
        "eval", client, queue=f"{queue}-workflows", num_slots=1, workflows=[Lingering], activities=[]
    )
    async with workflows, host.worker:
        small = await start(client, queue, f"{queue}/1")
        await until(lambda: len(host.running) == 1)
        large = await start(client, queue, f"{queue}/large")
        await until(lambda: len(host.arrived) == 2)
        more = await start(client, queue, f"{queue}/2", f"{queue}/3")
        host.may_end.set()
        await end(*small, *large, *more)
    assert [name.rpartition("/")[2] for name in host.arrived[:2]] == ["1", "large"]


async def test_runs_of_two_threads_on_two_slots_are_trained_one_after_the_other_and_the_second_waits(
    client: Client,
) -> None:
    """With the activity's own way to its slot: whoever waits has none, by what the sweep knows."""
    slots, at_once, peak = Slots(capacity_of(2, num_cpus=2)), 0, 0
    may_end = asyncio.Event()
    _slot.share(slots)
    script = Script()

    async def train(job: TrainJob) -> TrainResult:
        nonlocal at_once, peak
        at_once += 1
        peak = max(peak, at_once)
        async with heartbeats():
            await may_end.wait()
        at_once -= 1
        return trained(job, checkpoint_of(job, 10))

    script.train = train
    async with running_sweep(client, script, training_slots=slots, heartbeat_timeout_seconds=8.0) as sweep:
        handle = await sweep.start()
        refs = tuple(replace(sweep.ref(index), demand=LARGE) for index in range(3))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=refs, final=True))
        await until(lambda: at_once == 1)
        status = await handle.query(CoordinatorWorkflow.status)
        assert sum(state.has_slot for state in status.runs) == 1
        may_end.set()
        await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
    assert peak == 1
    assert [state.status for state in status.runs] == ["completed"] * 3
    assert [job.attempt for job in script.train_jobs] == [1, 1, 1]


async def test_a_run_is_charged_for_its_slot_and_not_for_the_time_that_it_waited_for_it(
    client: Client, tmp_path: Path
) -> None:
    waited_seconds = 2.0
    slots, may_end = Slots(capacity_of(2, num_cpus=2)), asyncio.Event()
    _slot.share(slots)
    other = await slots.take(SMALL)

    async def train(job: TrainJob) -> TrainResult:
        async with heartbeats():
            await may_end.wait()
        return trained(job, checkpoint_of(job, 10))

    async with running_sweep(client, Script(train=train), training_slots=slots, heartbeat_timeout_seconds=8.0) as sweep:
        handle = await sweep.start()
        large = replace(sweep.ref(0), demand=LARGE)
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(large,), final=True))
        await until(lambda: slots.would_wait(SMALL))
        await asyncio.sleep(waited_seconds)
        (waiting,) = (await explain_run(client, large.run_id, tmp_path)).attempts
        given_at = time.time()
        slots.give_back(other)
        await at_rest(handle, lambda status: status.runs[0].has_slot)
        (training,) = (await handle.query(CoordinatorWorkflow.status)).runs
        may_end.set()
        await handle.result()
        (trained_run,) = (await handle.query(CoordinatorWorkflow.status)).runs
        (told,) = (await explain_run(client, large.run_id, tmp_path)).attempts
    assert training.slot_since is not None
    assert abs(training.slot_since - given_at) < waited_seconds / 2
    assert 0 < trained_run.spent_seconds < time.time() - given_at
    assert (waiting.outcome, waiting.started_at) == ("queued", None)
    assert told.started_at is not None
    assert told.started_at.timestamp() == pytest.approx(training.slot_since, rel=0, abs=0.001)


async def test_a_run_that_no_worker_can_carry_fails_after_some_tries_and_says_what_there_is(client: Client) -> None:
    slots = Slots(capacity_of(2, num_cpus=2))
    _slot.share(slots)
    async with running_sweep(client, Script(train=train_at_once), training_slots=slots, max_attempts=2) as sweep:
        status = await sweep.run(replace(sweep.ref(0), demand=Demand(devices=4)), sweep.ref(1))
    failure = status.runs[0].failure
    assert failure is not None
    assert failure.error_type == "WorkerTooSmallError"
    assert "trainer.devices=4 takes 4 slots; this worker has 2 slots and 2 CPU threads" in failure.message
    assert status.runs[1].status == "completed"


async def test_who_waits_for_its_turn_on_a_worker_is_shown_so_and_can_be_cancelled_with_its_number_unused(
    client: Client,
) -> None:
    slots, may_end = Slots(capacity_of(2, num_cpus=2)), asyncio.Event()
    _slot.share(slots)

    async def train(job: TrainJob) -> TrainResult:
        async with heartbeats():
            await may_end.wait()
        return trained(job, checkpoint_of(job, 10))

    async with running_sweep(client, Script(train=train), training_slots=slots, heartbeat_timeout_seconds=8.0) as sweep:
        handle = await sweep.start()
        small, large = sweep.ref(0), replace(sweep.ref(1), demand=LARGE)
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(small,), final=False))
        await until(lambda: len(sweep.script.train_jobs) == 1)
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(large,), final=True))
        await until(lambda: slots.would_wait(SMALL))  # a slot is free, but it is not its turn
        async with asyncio.timeout(20):
            while (view := await observe(client, sweep.sweep_id)).runs[1].waiting is None:
                await asyncio.sleep(0.1)
        assert view.runs[1].status == "waiting"
        assert view.runs[1].waiting == "its turn on a worker with 2 slots and 2 CPU threads"
        cancelling = Command(kind="cancel", run=1)
        await handle.execute_update(CoordinatorWorkflow.steer, cancelling)
        await until(lambda: not slots.would_wait(SMALL))
        may_end.set()
        await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
    assert [state.status for state in status.runs] == ["completed", "cancelled"]
    assert [state.attempt for state in status.runs] == [1, 0]
