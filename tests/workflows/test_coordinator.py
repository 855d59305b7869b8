"""CoordinatorWorkflow: one snapshot, runs side by side, no barrier, one failure that sinks nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from bertpar.client import temporal_spec
from bertpar.events import EvaluateJob, EvaluateResult, SnapshotJob, SnapshotRef, TrainJob, TrainResult
from bertpar.follow import follow_runs
from bertpar.observe import observe
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.states import RunBatch, SweepStatus, tracking_queue
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import (
    Script,
    Sweep,
    checkpoint,
    evaluate_at_once,
    running_sweep,
    train_at_once,
    trained,
    until,
)


async def test_every_run_is_trained_and_evaluated_on_its_queue(client: Client) -> None:
    script = Script()
    async with running_sweep(client, script) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert status.status == "completed"
    assert [r.metrics["test/accuracy"] for r in status.runs] == [0.75, 0.75]
    training_queue, eval_queue = sweep.options.training_queue, sweep.options.eval_queue
    tracking = tracking_queue(eval_queue)
    queues = {"train": training_queue, "evaluate": eval_queue}
    queues |= dict.fromkeys(("open_run", "close_run", "make_report"), tracking)
    assert script.queues == queues
    assert sorted(script.opened) == sorted([sweep.sweep_id, *(r.run.run_id for r in status.runs)])
    assert set(script.closed.values()) == {"FINISHED"}


async def test_runs_that_share_data_share_one_snapshot(client: Client) -> None:
    script = Script()
    async with running_sweep(client, script) as sweep:
        await sweep.run(sweep.ref(0), sweep.ref(1), sweep.ref(2, request="other"))
    assert len(script.snapshot_jobs) == 2


async def test_a_failed_run_leaves_its_siblings_running(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.run_id.endswith("/0"):
            raise ApplicationError("loss is nan", type="NotANumberError")
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train)) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert [r.status for r in status.runs] == ["failed", "completed"]
    assert status.status == "failed"


async def test_bad_data_fails_the_runs_before_any_training(client: Client) -> None:
    async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
        raise ApplicationError("data.train_file: row 3 has no text", type="DataError", non_retryable=True)

    script = Script(make_snapshot=make_snapshot)
    async with running_sweep(client, script) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert [r.status for r in status.runs] == ["failed", "failed"]
    assert all(r.failure is not None and "row 3" in r.failure.message for r in status.runs)
    assert script.train_jobs == []
    assert len(script.snapshot_jobs) == 1


async def test_evaluation_of_one_run_does_not_wait_for_another_training(client: Client) -> None:
    evaluated = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        if job.run_id.endswith("/1"):
            await evaluated.wait()
        return await train_at_once(job)

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        evaluated.set()
        return await evaluate_at_once(job)

    async with running_sweep(client, Script(train=train, evaluate=evaluate), heartbeat_timeout_seconds=60.0) as sweep:
        status = await sweep.run(sweep.ref(0), sweep.ref(1))
    assert status.status == "completed"


async def test_max_parallel_limits_the_runs_in_flight(client: Client) -> None:
    now, most, started = 0, 0, 0

    async def train(job: TrainJob) -> TrainResult:
        nonlocal now, most, started
        started += 1
        now += 1
        most = max(most, now)
        await until(lambda: now == 2 or started == 5)  # the first of two waits for the second
        now -= 1
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train), max_parallel=2, heartbeat_timeout_seconds=60.0) as sweep:
        await sweep.run(*(sweep.ref(i) for i in range(5)))
    assert (most, started) == (2, 5)


async def test_cancelling_stops_the_training_and_closes_every_mlflow_run_as_killed(client: Client) -> None:
    stopped = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            stopped.set()
            raise

    script = Script(train=train)
    async with running_sweep(client, script, max_parallel=1) as sweep:
        handle = await sweep.start()
        runs = (sweep.ref(0), sweep.ref(1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await until(lambda: bool(script.train_jobs))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
    assert stopped.is_set()
    assert status.status == "cancelled"
    assert [r.status for r in status.runs] == ["cancelled", "cancelled"]
    assert script.closed == {f"{sweep.sweep_id}/0": "KILLED", sweep.sweep_id: "KILLED"}


async def test_one_coordinator_takes_further_batches_until_it_is_closed(client: Client) -> None:
    script = Script()
    async with running_sweep(client, script) as sweep:
        handle = await sweep.start()
        for index in range(3):
            batch = RunBatch(runs=(sweep.ref(index),), final=False)
            await handle.execute_update(CoordinatorWorkflow.add_runs, batch)
            await handle.execute_update(CoordinatorWorkflow.add_runs, batch)  # said twice
            await until(lambda: f"{sweep.sweep_id}/{index}" in script.closed)  # noqa: B023
        await handle.signal(CoordinatorWorkflow.close)
        summary = await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
        assert (summary.status, summary.num_runs, len(script.train_jobs)) == ("completed", 3, 3)
        assert [r.status for r in status.runs] == ["completed"] * 3


async def test_a_closed_sweep_refuses_further_runs(client: Client) -> None:
    go_on = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        await go_on.wait()
        return trained(job, checkpoint(job, 1))

    async with running_sweep(client, Script(train=train), heartbeat_timeout_seconds=60.0) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(1),), final=True))
        go_on.set()
        await handle.result()
    assert "takes no further runs" in str(refused.value.cause)


async def test_a_terminated_sweep_is_seen_as_failed_and_not_followed_for_ever(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        await asyncio.sleep(3600)
        raise AssertionError

    script = Script(train=train)
    async with running_sweep(client, script, heartbeat_timeout_seconds=60.0) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        await until(lambda: bool(script.train_jobs))
        assert (await observe(client, sweep.sweep_id)).sweep.status == "running"
        await handle.terminate()
        async with asyncio.timeout(20):
            patient = PatientClient(client, temporal_spec(address="cluster:1"), Home(Path("/nowhere")))
            view = await follow_runs(patient, sweep.sweep_id, {0}, 0.1, Home(Path("/nowhere")))
    assert view.sweep.status == "failed"
    assert [run.state.status for run in view.runs] == ["training"]


async def test_a_cancelled_run_is_not_tried_again_when_its_worker_was_lost(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        await asyncio.sleep(3600)  # deaf: neither heartbeats nor hears of the cancellation
        raise AssertionError

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        status = await cancelled_after_start(sweep)
    assert [r.status for r in status.runs] == ["cancelled"]
    assert len(script.train_jobs) == 1
    assert script.closed == {f"{sweep.sweep_id}/0": "KILLED", sweep.sweep_id: "KILLED"}


async def test_a_run_that_ends_well_while_it_is_cancelled_is_not_evaluated(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            return trained(job, checkpoint(job, 1))

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        status = await cancelled_after_start(sweep)
    assert [r.status for r in status.runs] == ["cancelled"]
    assert "evaluate" not in script.queues
    assert script.closed == {f"{sweep.sweep_id}/0": "KILLED", sweep.sweep_id: "KILLED"}


async def cancelled_after_start(sweep: Sweep) -> SweepStatus:
    """Start a sweep of one, cancel it as soon as it trains, and return how it ended."""
    handle = await sweep.start()
    await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
    await until(lambda: bool(sweep.script.train_jobs))
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    return await handle.query(CoordinatorWorkflow.status)
