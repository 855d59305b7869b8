"""TrainingWorkflow: numbered attempts that resume from what was signalled."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar.events import CHECKPOINT_SAVED, TrainJob, TrainResult
from bertpar.states import RunState, SweepStatus
from bertpar.workflows import TrainingWorkflow
from tests.workflows.conftest import Script, checkpoint, running_sweep, save, trained, until


def only_run(status: SweepStatus) -> RunState:
    (state,) = status.runs
    return state


async def test_a_retry_resumes_from_the_newest_signalled_checkpoint(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            await save(job, checkpoint(job, 80))
            await save(job, checkpoint(job, 112))  # as text, 112 comes before 80
            raise ApplicationError("killed", type="ProcessDiedError")
        return trained(job, checkpoint(job, 200))

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
        status = await client.get_workflow_handle(f"{sweep.sweep_id}/0/train").query(TrainingWorkflow.status)
    assert state.status == "completed"
    assert [[c.step for c in job.resume_from] for job in script.train_jobs] == [[], [112, 80]]
    assert [(a.number, a.resumed_from_step, a.cause and a.cause.error_type) for a in status.attempts] == [
        (1, 0, "ProcessDiedError"),
        (2, 112, None),
    ]


async def test_a_lost_worker_is_noticed_by_its_heartbeat_and_tried_again(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            await save(job, checkpoint(job, 5))
            await asyncio.sleep(3600)  # no heartbeat: as if the worker were gone
        return trained(job, checkpoint(job, 10))

    script = Script(train=train)
    async with running_sweep(client, script, max_attempts=1) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
        status = await client.get_workflow_handle(f"{sweep.sweep_id}/0/train").query(TrainingWorkflow.status)
    assert (state.status, state.attempt) == ("completed", 2)
    cause = status.attempts[0].cause
    assert cause is not None
    assert (cause.error_type, status.attempts[1].resumed_from_step) == ("WorkerLostError", 5)


@pytest.mark.parametrize(("error_type", "attempts"), [("NotANumberError", 1), ("ProcessDiedError", 3)])
async def test_a_final_failure_fails_the_run_at_once_and_a_crash_after_the_limit(
    client: Client, error_type: str, attempts: int
) -> None:
    async def train(job: TrainJob) -> TrainResult:
        raise ApplicationError("train/loss=nan at step 3", type=error_type)

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert len(script.train_jobs) == attempts
    assert state.status == "failed"
    assert state.failure is not None
    assert (state.failure.error_type, state.failure.message) == (error_type, "train/loss=nan at step 3")
    assert script.closed == {state.run.run_id: "FAILED", sweep.sweep_id: "FAILED"}


async def test_progress_between_failures_renews_the_budget(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt <= 4:
            await save(job, checkpoint(job, job.attempt))
            raise ApplicationError("killed", type="ProcessDiedError")
        return trained(job, checkpoint(job, 10))

    async with running_sweep(client, Script(train=train), max_attempts=2) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, state.attempt) == ("completed", 5)


async def test_a_signal_said_twice_changes_nothing_and_a_superseded_attempts_is_ignored(
    client: Client,
) -> None:
    go_on = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            raise ApplicationError("gone", type="WorkerLostError")
        await save(job, checkpoint(job, 7))
        await save(job, checkpoint(job, 7))
        late = checkpoint(TrainJob(**{**vars(job), "attempt": 1}), 9)
        await save(job, late)
        await go_on.wait()
        return trained(job, checkpoint(job, 10))

    script = Script(train=train)
    async with running_sweep(client, script, heartbeat_timeout_seconds=60.0) as sweep:
        running = asyncio.create_task(sweep.run(sweep.ref(0)))
        await until(lambda: len(script.train_jobs) == 2)
        handle = client.get_workflow_handle(f"{sweep.sweep_id}/0/train")
        async with asyncio.timeout(20):
            while not (found := await handle.query(TrainingWorkflow.checkpoints)):
                await asyncio.sleep(0.05)
        assert [(c.step, c.attempt) for c in found] == [(7, 2)]
        latest = await handle.query(TrainingWorkflow.latest_checkpoint)
        go_on.set()
        state = only_run(await running)
    assert latest is not None
    assert latest.step == 7
    assert state.num_checkpoints == 1


async def test_pruned_checkpoints_are_no_resume_points(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            first, second = checkpoint(job, 1), checkpoint(job, 2)
            await save(job, first)
            await save(job, second, pruned=(first.key,))
            raise ApplicationError("killed", type="ProcessDiedError")
        return trained(job, checkpoint(job, 10))

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        await sweep.run(sweep.ref(0))
    assert [c.step for c in script.train_jobs[1].resume_from] == [2]


async def test_the_signal_has_its_public_name(client: Client) -> None:
    assert CHECKPOINT_SAVED == "checkpoint_saved"
    async with running_sweep(client, Script()) as sweep:
        await sweep.run(sweep.ref(0))
        history = await client.get_workflow_handle(f"{sweep.sweep_id}/0/train").fetch_history()
    signals = [e.workflow_execution_signaled_event_attributes.signal_name for e in history.events]
    assert "checkpoint_saved" in signals
