"""The activities as workflows call them: each with its types, queue, timeouts and retries, named once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from bertpar.events import (
        CloseRunJob,
        EvaluateJob,
        EvaluateResult,
        MlflowRun,
        OpenRunJob,
        PredictJob,
        PredictResult,
        SnapshotJob,
        SnapshotRef,
        SweepOptions,
        TrainJob,
        TrainResult,
    )
    from bertpar.workflows.failures import LIMITED, ONCE, PATIENT

_TRACKING_CALL: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    "heartbeat_timeout": timedelta(seconds=10),
    "retry_policy": PATIENT,
}
_LONGEST_JOB = timedelta(days=7)
_LONGEST_ATTEMPT = timedelta(days=365)


async def open_run(job: OpenRunJob) -> MlflowRun:
    """Find or create an MLflow run, waiting for MLflow as long as it takes."""
    run: MlflowRun = await workflow.execute_activity(
        "open_run",
        job,
        result_type=MlflowRun,
        **_TRACKING_CALL,
        summary=job.name,
    )
    return run


async def close_run(job: CloseRunJob) -> None:
    """Give an MLflow run its final status, waiting for MLflow as long as it takes."""
    await workflow.execute_activity(
        "close_run",
        job,
        **_TRACKING_CALL,
        summary=job.status,
    )


async def make_snapshot(job: SnapshotJob, options: SweepOptions) -> SnapshotRef:
    """Find or make the snapshot of a run's data."""
    snapshot: SnapshotRef = await workflow.execute_activity(
        "make_snapshot",
        job,
        result_type=SnapshotRef,
        start_to_close_timeout=_LONGEST_JOB,
        heartbeat_timeout=_heartbeat(options.heartbeat_timeout_seconds),
        retry_policy=LIMITED,
        summary="dataset",
    )
    return snapshot


async def train(job: TrainJob, options: SweepOptions) -> TrainResult:
    """Make one attempt, on the training queue; ends when its process has, by cancellation too."""
    result: TrainResult = await workflow.execute_activity(
        "train",
        job,
        result_type=TrainResult,
        task_queue=options.training_queue,
        start_to_close_timeout=_LONGEST_ATTEMPT,
        heartbeat_timeout=_heartbeat(options.heartbeat_timeout_seconds),
        retry_policy=ONCE,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=f"attempt {job.attempt} from step {job.resume_from[0].step if job.resume_from else 0}",
    )
    return result


async def evaluate(job: EvaluateJob, options: SweepOptions) -> EvaluateResult:
    """Score a checkpoint on the test split."""
    result: EvaluateResult = await workflow.execute_activity(
        "evaluate",
        job,
        result_type=EvaluateResult,
        start_to_close_timeout=_LONGEST_JOB,
        heartbeat_timeout=_heartbeat(options.heartbeat_timeout_seconds),
        retry_policy=LIMITED,
        summary=f"test split, checkpoint of step {job.checkpoint.step}",
    )
    return result


async def predict(job: PredictJob, heartbeat_timeout_seconds: float) -> PredictResult:
    """Predict an input bundle with a checkpoint."""
    result: PredictResult = await workflow.execute_activity(
        "predict",
        job,
        result_type=PredictResult,
        start_to_close_timeout=_LONGEST_JOB,
        heartbeat_timeout=_heartbeat(heartbeat_timeout_seconds),
        retry_policy=LIMITED,
        summary=f"checkpoint of step {job.checkpoint.step}",
    )
    return result


def _heartbeat(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
