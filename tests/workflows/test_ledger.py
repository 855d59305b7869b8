"""What a sweep enters into its ledger, and how it ends when its budget is used up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bertpar.claims import Claimed, ClaimJob
from bertpar.events import ATTEMPT_ENDED, ATTEMPT_STARTED, CheckpointRef, Progress, TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.states import RunBatch
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, at_rest, checkpoint, running_sweep, save, trained


def result(job: TrainJob, seconds: float, resumed_work_seconds: float = 0.0) -> TrainResult:
    """Return a result after `seconds` in a slot, as the real activity measures them."""
    done = trained(job, replace(checkpoint(job, 100), work_seconds=resumed_work_seconds + seconds))
    return replace(done, train_seconds=seconds, resumed_work_seconds=resumed_work_seconds)


async def test_a_sweep_knows_and_tells_mlflow_what_was_spent_and_lost(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.run_id.endswith("/0") and job.attempt == 1:
            await save(job, replace(checkpoint(job, 5), work_seconds=40.0))
            raise ApplicationError("killed", None, None, 60.0, type="ProcessDiedError")
        return result(job, 100.0, job.resume_from[0].work_seconds if job.resume_from else 0.0)

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert [(r.spent_seconds, r.lost_seconds, r.slot_since) for r in status.runs] == [
        (160.0, 20.0, None),
        (100.0, 0.0, None),
    ]
    tags = {job.opening.identity: job.tags for job in script.close_jobs}
    told = ("bertpar.spent_seconds", "bertpar.lost_seconds", "bertpar.saved_seconds")
    assert [tags[f"{sweep.sweep_id}/0"][key] for key in told] == ["160.0", "20.0", "0.0"]
    assert [tags[sweep.sweep_id][key] for key in told] == ["260.0", "20.0", "0.0"]


async def test_only_the_end_of_an_attempt_that_failed_costs_the_sweep_a_signal(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            raise ApplicationError("killed", None, None, 60.0, type="ProcessDiedError")
        return result(job, 100.0)

    async with running_sweep(client, Script(train=train)) as sweep:
        (run,) = (await sweep.run(sweep.ref(0))).runs
        history = await client.get_workflow_handle(sweep.sweep_id).fetch_history()
    signals = [event.workflow_execution_signaled_event_attributes.signal_name for event in history.events]
    assert [signal for signal in signals if signal] == [ATTEMPT_STARTED, ATTEMPT_ENDED, ATTEMPT_STARTED]
    assert (run.spent_seconds, run.has_slot, run.slot_since) == (160.0, False, None)


async def test_a_training_that_is_done_when_its_sweep_is_cancelled_has_spent_its_time(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        with suppress(asyncio.CancelledError):
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)
        return result(job, 100.0)

    async with running_sweep(client, Script(train=train)) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        await at_rest(handle, lambda status: status.runs[0].has_slot)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        (run,) = (await handle.query(CoordinatorWorkflow.status)).runs
    assert (run.status, run.spent_seconds) == ("cancelled", 100.0)


async def test_a_lost_worker_has_spent_what_its_last_heartbeat_said(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            activity.heartbeat(Progress(attempt=1, phase="training", step=7, total_steps=10, seconds=50.0))
            await asyncio.Event().wait()
        return result(job, 100.0)

    async with running_sweep(client, Script(train=train)) as sweep:
        (run,) = (await sweep.run(sweep.ref(0))).runs
    assert (run.spent_seconds, run.lost_seconds) == (150.0, 50.0)


async def offer(job: ClaimJob) -> Claimed:
    found = CheckpointRef(key="other", digest="d", step=30, attempt=1, num_bytes=1, metrics={}, work_seconds=30.0)
    return Claimed(run_key="k", resume_from=(found,), origin="other/0", saved_seconds=30.0)


async def test_a_checkpoint_that_was_offered_and_not_gone_on_from_has_saved_and_lost_nothing(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        return result(job, 100.0)

    async with running_sweep(client, Script(train=train, claim_run=offer)) as sweep:
        (run,) = (await sweep.run(sweep.ref(0))).runs
    assert (run.spent_seconds, run.lost_seconds, run.saved_seconds) == (100.0, 0.0, 0.0)


async def test_what_early_stopping_and_equal_runs_left_out_is_saved(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        (found,) = job.resume_from
        done = replace(result(job, 100.0, resumed_work_seconds=found.work_seconds), continues=found)
        return replace(done, stopped_early=True, total_steps=200, work_seconds=130.0)

    async with running_sweep(client, Script(train=train, claim_run=offer)) as sweep:
        await sweep.run(sweep.ref(0))
        seen = (await observe(client, sweep.sweep_id)).as_json()
    assert {key: seen[key] for key in ("spent_seconds", "lost_seconds", "saved_seconds")} == {
        "spent_seconds": 100.0,
        "lost_seconds": 0.0,
        "saved_seconds": 30.0 + 130.0,
    }
    assert seen["runs"][0]["saved_seconds"] == 160.0
