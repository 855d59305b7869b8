"""Urgent runs and limits that are set on the way decide who trains next."""

from __future__ import annotations

import asyncio

from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar import steer
from bertpar.events import TrainJob, TrainResult
from tests.workflows.conftest import until
from tests.workflows.live_sweep import begun, live


async def test_an_urgent_run_takes_the_next_free_slot_of_the_workers(client: Client) -> None:
    async with live(client, 4, num_slots=1) as sweep:
        await sweep.reaches("training", "training", "training", "training")
        await until(lambda: len(sweep.trainings.running) == 1)
        (holder,) = sweep.trainings.running
        urgent = max(set(range(4)) - {holder})
        await sweep.steer("priority", urgent, priority="high")
        # the others have given way, and come back to the queue
        others = set(range(4)) - {holder, urgent}
        await sweep.reaches(*("queued" if index in others else "training" for index in range(4)))
        sweep.trainings.may_end.add(holder)
        await until(lambda: len(sweep.trainings.started) == 2)
        assert sweep.trainings.started == [holder, urgent]
        status = await sweep.end()
    assert status.status == "completed"
    assert sorted(sweep.trainings.numbers) == [(index, 1) for index in range(4)]


async def test_an_urgent_run_takes_the_next_free_place_of_max_parallel(client: Client) -> None:
    async with live(client, 3, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("priority", 2, priority="high")
        sweep.trainings.may_end.add(0)
        await until(lambda: len(sweep.trainings.started) == 2)
        assert sweep.trainings.started == [0, 2]
        await sweep.end()


async def test_with_preempt_the_least_advanced_training_yields_and_is_started_again_later(client: Client) -> None:
    async with live(client, 3, max_parallel=2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        steered = await steer.prioritize(client, f"{sweep.sweep_id}/2", "high", print, preempt=True)
        assert steered.yields in (0, 1)
        await until(begun(sweep.trainings, 2, 1 - steered.yields))
        yielded = await sweep.state(steered.yields)
        assert (yielded.status, yielded.step, yielded.priority) == ("queued", 15, "normal")
        sweep.trainings.may_end.add(2)
        await until(begun(sweep.trainings, 0, 1))  # by itself
        assert (await sweep.end()).status == "completed"
    assert sweep.trainings.numbers.count((steered.yields, 2)) == 1


async def test_a_run_whose_attempt_was_lost_waits_for_a_slot_like_one_that_had_none(client: Client) -> None:
    async with live(client, 2, num_slots=1, starts=False) as sweep:
        lost: list[int] = []

        async def lose_the_first(job: TrainJob) -> TrainResult:
            if not lost:
                lost.append(int(job.run_id.rpartition("/")[2]))
                raise ApplicationError("killed", type="ProcessDiedError")
            return await sweep.trainings.train(job)

        sweep.sweep.script.train = lose_the_first
        await sweep.begin(2)
        await until(lambda: len(sweep.trainings.running) == 1)
        holder = 1 - lost[0]
        await until(begun(sweep.trainings, holder))
        async with asyncio.timeout(20):
            while (await sweep.state(lost[0])).has_slot:
                await asyncio.sleep(0.05)
        steered = await steer.prioritize(client, f"{sweep.sweep_id}/{lost[0]}", "high", print, preempt=True)
        assert steered.yields == holder
        await until(begun(sweep.trainings, lost[0]))
        assert (await sweep.end()).status == "completed"


async def test_a_higher_limit_starts_more_runs_and_a_lower_one_stops_none(client: Client) -> None:
    async with live(client, 4, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await steer.set_option(client, sweep.sweep_id, "max_parallel=3", print)
        await until(begun(sweep.trainings, 0, 1, 2))
        await steer.set_option(client, sweep.sweep_id, "max_parallel=1", print)
        sweep.trainings.may_end.add(0)
        await sweep.reaches("completed", "training", "training", "queued")
        await steer.set_option(client, sweep.sweep_id, "max_parallel=null", print)
        await until(begun(sweep.trainings, 1, 2, 3))
        await sweep.end()
