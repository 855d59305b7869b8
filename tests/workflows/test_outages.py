"""MLflow away, memory short, code broken: what the workflows do about each."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar.events import EvaluateJob, EvaluateResult, SnapshotJob, SnapshotRef, TrainJob, TrainResult
from bertpar.mlflow_jobs import CloseRunJob, OpenRunJob
from bertpar.observe import observe
from bertpar.spec import ResumeSpec
from bertpar.states import Command, RunBatch, RunState, SweepStatus
from bertpar.workflows import CoordinatorWorkflow, TrainingWorkflow
from tests.workflows.conftest import (
    Script,
    Sweep,
    at_rest,
    checkpoint,
    evaluate_at_once,
    running_sweep,
    save,
    snapshot_at_once,
    train_at_once,
    trained,
    until,
)


def only_run(status: SweepStatus) -> RunState:
    (state,) = status.runs
    return state


async def reaches(sweep: Sweep, wanted: list[str]) -> SweepStatus:
    """Wait until the sweep's runs have the wanted statuses, also for the next command."""
    handle = sweep.client.get_workflow_handle_for(CoordinatorWorkflow.run, sweep.sweep_id)
    await at_rest(handle, lambda status: [state.status for state in status.runs] == wanted)
    return await handle.query(CoordinatorWorkflow.status)


async def test_runs_are_trained_and_scored_while_mlflow_is_away_and_told_when_it_is_back(client: Client) -> None:
    back = asyncio.Event()

    async def answer_when_back(job: OpenRunJob | CloseRunJob) -> None:
        if not back.is_set():
            raise ApplicationError("nobody answers", type="TrackingError")

    script = Script(open_run=answer_when_back, close_run=answer_when_back)
    async with running_sweep(client, script, max_parallel=1) as sweep:
        handle = await sweep.start()
        runs = (sweep.ref(0), sweep.ref(1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        status = await reaches(sweep, ["reporting", "reporting"])  # the first leaves its place to the second
        assert [r.metrics["test/accuracy"] for r in status.runs] == [0.75, 0.75]
        assert not script.closed
        back.set()
        assert (await handle.result()).status == "completed"
    assert set(script.closed.values()) == {"FINISHED"}
    assert script.closed.keys() == {sweep.sweep_id, f"{sweep.sweep_id}/0", f"{sweep.sweep_id}/1"}
    evaluations = [job.evaluation for job in script.close_jobs if job.opening.identity != sweep.sweep_id]
    assert [e is not None and e.result.metrics for e in evaluations] == [{"test/accuracy": 0.75}] * 2


async def test_runs_are_scored_while_more_calls_to_mlflow_hang_than_a_worker_has_slots(client: Client) -> None:
    """As with a server that swallows packets: no call fails, each just goes on. One run trains at a time."""
    back, scored = asyncio.Event(), list[str]()

    async def hang(job: OpenRunJob | CloseRunJob) -> None:
        while not back.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.1)

    async def train(job: TrainJob) -> TrainResult:
        num_before = len(script.train_jobs) - 1
        await until(lambda: len(scored) >= num_before)
        return await train_at_once(job)

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        scored.append(job.run_id)
        return await evaluate_at_once(job)

    script = Script(train=train, evaluate=evaluate, open_run=hang, close_run=hang)
    async with running_sweep(client, script, num_slots=2, heartbeat_timeout_seconds=60.0) as sweep:
        handle = await sweep.start()
        runs = tuple(sweep.ref(index) for index in range(6))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await until(lambda: len(scored) == len(runs), 60)
        assert not script.closed
        back.set()
        assert (await handle.result()).status == "completed"
    assert sorted(scored) == sorted(run.run_id for run in runs)


async def test_a_run_that_mlflow_refuses_for_good_fails_with_its_score_and_the_sweep_ends(client: Client) -> None:
    async def refuse(job: OpenRunJob | CloseRunJob) -> None:
        raise ApplicationError("experiment is deleted", type="TrackingRefusedError", non_retryable=True)

    async with running_sweep(client, Script(open_run=refuse, close_run=refuse)) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, state.metrics["test/accuracy"]) == ("failed", 0.75)
    assert state.failure is not None
    assert state.failure.error_type == "TrackingRefusedError"


async def test_a_sweep_that_is_cancelled_keeps_the_run_that_is_being_told_to_mlflow(client: Client) -> None:
    back = asyncio.Event()

    async def answer_when_back(job: OpenRunJob | CloseRunJob) -> None:
        if not back.is_set():
            raise ApplicationError("nobody answers", type="TrackingError")

    script = Script(open_run=answer_when_back, close_run=answer_when_back)
    async with running_sweep(client, script) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        await reaches(sweep, ["reporting"])
        await handle.cancel()
        back.set()
        status = await reaches(sweep, ["completed"])
        await until(lambda: sweep.sweep_id in script.closed)
    assert only_run(status).metrics["test/accuracy"] == 0.75
    assert script.closed == {f"{sweep.sweep_id}/0": "FINISHED", sweep.sweep_id: "KILLED"}


async def test_out_of_memory_is_tried_again_with_smaller_micro_batches(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.batch_divisor == 1:
            await save(job, checkpoint(job, 5))
            raise ApplicationError("no memory", None, 7, type="OutOfMemoryError")
        return trained(job, checkpoint(job, 10))

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
        status = await client.get_workflow_handle(f"{sweep.sweep_id}/0/train").query(TrainingWorkflow.status)
    assert state.status == "completed"
    assert [(job.batch_divisor, len(job.resume_from)) for job in script.train_jobs] == [(1, 0), (2, 1)]
    assert status.attempts[0].cause is not None
    assert (status.attempts[0].cause.error_type, status.attempts[0].cause.step) == ("OutOfMemoryError", 7)


async def test_a_nan_loss_is_rolled_back_once_where_the_user_allows_it(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        raise ApplicationError("loss is nan", type="NotANumberError")

    script = Script(train=train)
    resume = ResumeSpec(allow_inexact=False, nan_lr_factor=0.5)
    async with running_sweep(client, script, resume=resume) as sweep:
        assert only_run(await sweep.run(sweep.ref(0))).status == "failed"
    assert [job.lr_scale for job in script.train_jobs] == [1.0, 0.5]


async def fail_in_code(job: TrainJob) -> TrainResult:
    if job.run_id.endswith("/5"):
        return await train_at_once(job)
    traceback = f'Traceback\n  File "module.py", line 3, in step\nKeyError: {job.run_id}'
    raise ApplicationError(f"KeyError: {job.run_id}", traceback, None, type="KeyError")


async def test_a_sweep_that_is_resumed_tries_its_data_again(client: Client) -> None:
    """They have been mended meanwhile."""
    mended = asyncio.Event()

    async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
        if not mended.is_set():
            raise ApplicationError("no such file", '  File "x.py", line 1, in f', type="KeyError", non_retryable=True)
        return await snapshot_at_once(job)

    script = Script(make_snapshot=make_snapshot)
    async with running_sweep(client, script, max_parallel=3) as sweep:
        handle = await sweep.start()
        await handle.execute_update(
            CoordinatorWorkflow.add_runs, RunBatch(runs=tuple(sweep.ref(i) for i in range(5)), final=True)
        )
        await at_rest(handle, lambda status: status.paused is not None)
        mended.set()
        await handle.execute_update(CoordinatorWorkflow.steer, Command(kind="resume"))
        await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
    assert [run.status for run in status.runs] == ["failed"] * 3 + ["completed"] * 2
    assert len(script.snapshot_jobs) == 2


async def test_a_sweep_whose_first_runs_fail_alike_pauses_and_goes_on_when_resumed(client: Client) -> None:
    script = Script(train=fail_in_code)
    async with running_sweep(client, script, max_parallel=1, max_attempts=1) as sweep:
        handle = await sweep.start()
        runs = tuple(sweep.ref(i) for i in range(6))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        status = await reaches(sweep, ["failed"] * 3 + ["queued"] * 3)
        assert status.paused is not None
        assert "KeyError" in status.paused
        assert len(script.train_jobs) == 3
        await handle.execute_update(CoordinatorWorkflow.steer, Command(kind="resume"))
        summary = await handle.result()
        status = await handle.query(CoordinatorWorkflow.status)
    assert (summary.status, status.paused) == ("failed", None)
    assert [r.status for r in status.runs] == ["failed"] * 5 + ["completed"]


async def test_a_run_that_fails_before_mlflow_has_opened_it_is_shown_with_its_mlflow_run(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        raise ApplicationError("loss is nan", type="NotANumberError")

    async def open_run(job: OpenRunJob) -> None:
        if job.parent_identity is not None:
            await asyncio.Event().wait()

    async with running_sweep(client, Script(train=train, open_run=open_run)) as sweep:
        await sweep.run(sweep.ref(0))
        (run,) = (await observe(client, sweep.sweep_id)).runs
    assert (run.status, run.state.mlflow_run_id) == ("failed", f"mlflow-{sweep.sweep_id}/0")


async def test_a_failed_run_keeps_its_cause_whatever_mlflow_says(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        raise ApplicationError("loss is nan", type="NotANumberError")

    async def close_run(job: CloseRunJob) -> None:
        if job.opening.parent_identity is not None:
            raise ApplicationError("deleted", type="TrackingRefusedError", non_retryable=True)

    script = Script(train=train, close_run=close_run)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert state.failure is not None
    assert (state.status, state.failure.message) == ("failed", "loss is nan")
