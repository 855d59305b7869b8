"""Runs and sweeps are paused and resumed: no step is lost, no number used twice, no slot kept."""

from __future__ import annotations

import asyncio

from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar.events import AttemptStarted, TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.why import explain_state
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import SHORT_HISTORIES, checkpoint, start_server, trained, until
from tests.workflows.live_sweep import begun, live


async def test_a_paused_run_leaves_its_slot_with_a_checkpoint_and_goes_on_when_resumed(client: Client) -> None:
    async with live(client, 2, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await until(begun(sweep.trainings, 1))  # its slot is free
        paused = (await sweep.reaches("paused", "training")).runs[0]
        assert (paused.step, paused.num_checkpoints, paused.attempt, paused.order) == (15, 1, 1, None)
        sweep.trainings.may_end.add(1)
        await sweep.reaches("paused", "completed")  # and the sweep waits for it
        await sweep.steer("resume", 0)
        await until(begun(sweep.trainings, 0))
        status = await sweep.end()
        record = await explain_state(client, status.runs[0], {})
    assert status.status == "completed"
    assert sweep.trainings.numbers == [(0, 1), (1, 1), (0, 2)]
    assert [(a.number, a.outcome, a.reached_step) for a in record.attempts] == [
        (1, "failed", 15),
        (2, "completed", 100),
    ]
    assert sweep.sweep.script.closed[f"{sweep.sweep_id}/0"] == "FINISHED"


async def test_a_paused_sweep_starts_nothing_and_goes_on_when_resumed(client: Client) -> None:
    async with live(client, 3, max_parallel=2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        assert (await sweep.steer("pause")).runs == (0, 1)
        status = await sweep.reaches("paused", "paused", "queued")
        assert status.paused == "a user has paused it"
        view = await observe(client, sweep.sweep_id)
        assert [run.status for run in view.runs] == ["paused", "paused", "queued"]
        assert sorted(sweep.trainings.started) == [0, 1]
        await sweep.steer("resume")
        assert (await sweep.end()).status == "completed"
    assert sorted(sweep.trainings.numbers) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]


async def test_a_training_that_waits_for_a_slot_is_paused_without_using_a_number(client: Client) -> None:
    async with live(client, 2, num_slots=1) as sweep:
        await sweep.reaches("training", "training")
        await until(lambda: len(sweep.trainings.running) == 1)
        (holder,) = sweep.trainings.running
        waiting = 1 - holder
        await sweep.steer("pause", waiting)
        await sweep.reaches(*("paused" if index == waiting else "training" for index in range(2)))
        await sweep.steer("resume", waiting)
        await sweep.end()
    assert sorted(sweep.trainings.numbers) == [(0, 1), (1, 1)]


async def test_a_training_that_ends_while_it_is_to_pause_is_done(client: Client) -> None:
    async with live(client, 1) as sweep:
        await until(begun(sweep.trainings, 0))
        ended = sweep.trainings.train

        async def end_instead(job: TrainJob) -> TrainResult:
            try:
                return await ended(job)
            except ApplicationError:
                return trained(job, checkpoint(job, 100))

        sweep.sweep.script.train = end_instead
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        state = (await sweep.reaches("completed")).runs[0]
        await client.get_workflow_handle(sweep.sweep_id).result()
    assert (state.order, state.attempt) == (None, 2)


async def test_a_training_whose_data_are_damaged_while_it_is_to_pause_is_paused(client: Client) -> None:
    async with live(client, 1) as sweep:

        async def find_damage(job: TrainJob) -> TrainResult:
            try:
                return await sweep.trainings.train(job)
            except ApplicationError:
                raise ApplicationError("damaged", type="SnapshotDamagedError") from None

        sweep.sweep.script.train = find_damage
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await sweep.end()
    assert sweep.trainings.numbers == [(0, 1), (0, 2)]


async def test_a_paused_sweep_outlives_its_history_and_keeps_its_attempts() -> None:
    async with (
        await start_server(*SHORT_HISTORIES) as server,
        live(server.client, 2, max_parallel=1) as sweep,
    ):
        handle = server.client.get_workflow_handle(sweep.sweep_id)
        await until(begun(sweep.trainings, 0))
        await sweep.steer("priority", 1, priority="high")
        await sweep.steer("pause", 0)
        await until(begun(sweep.trainings, 1))
        await sweep.steer("pause", 1)
        await sweep.reaches("paused", "paused")
        first = (await handle.describe()).run_id
        async with asyncio.timeout(30):
            while (await handle.describe()).run_id == first:  # whatever is said lengthens the history
                await sweep.steer("set", max_parallel=2)
        status = await sweep.status()
        assert [(r.status, r.attempt, r.step, r.priority) for r in status.runs] == [
            ("paused", 1, 15, "normal"),
            ("paused", 1, 15, "high"),
        ]
        assert status.options.max_parallel == 2
        await sweep.steer("resume")
        assert (await sweep.end()).status == "completed"
    assert sorted(sweep.trainings.numbers) == [(0, 1), (0, 2), (1, 1), (1, 2)]


async def test_a_start_that_is_told_after_its_run_has_left_gives_it_no_slot(client: Client) -> None:
    async with live(client, 2, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 1)
        late = AttemptStarted(run=1, attempt=1)
        await client.get_workflow_handle(sweep.sweep_id).signal(CoordinatorWorkflow.attempt_started, late)
        state = await sweep.state(1)
        assert (state.status, state.attempt, state.has_slot, state.slot_since) == ("paused", 1, False, None)
        await sweep.steer("resume", 1)
        assert (await sweep.end()).status == "completed"
    assert sweep.trainings.numbers == [(0, 1), (1, 2)]


async def test_what_failures_have_changed_about_a_training_stays_changed_after_a_pause(client: Client) -> None:
    async with live(client, 1) as sweep:

        async def out_of_memory_once(job: TrainJob) -> TrainResult:
            if job.attempt == 1:
                raise ApplicationError("out of memory", None, 3, type="OutOfMemoryError")
            return await sweep.trainings.train(job)

        sweep.sweep.script.train = out_of_memory_once
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await sweep.end()
    assert [(job.attempt, job.batch_divisor) for job in sweep.sweep.script.train_jobs] == [(1, 1), (2, 2), (3, 2)]
