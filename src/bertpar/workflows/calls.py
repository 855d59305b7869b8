"""The activities as workflows call them: each with its types, queue, timeouts and retries, named once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from bertpar.claims import Claimed, ClaimJob, Forecast, LookUpJob
    from bertpar.errors import SnapshotDamagedError
    from bertpar.events import (
        EvaluateJob,
        EvaluateResult,
        PredictJob,
        PredictResult,
        SnapshotJob,
        SnapshotRef,
        TrainJob,
        TrainResult,
    )
    from bertpar.mlflow_jobs import CloseRunJob, MlflowRun, OpenRunJob, ReportJob
    from bertpar.states import SweepOptions, tracking_queue
    from bertpar.workflows.failures import ONCE, PATIENT, SOMETIMES, cancel_requested, describe_failure

T = TypeVar("T")

_LONGEST_JOB = timedelta(days=7)
_LONGEST_ATTEMPT = timedelta(days=365)
_LONGEST_REPORT = timedelta(minutes=10)
_MAX_REBUILDS = 3
"""Of one snapshot, for one piece of work: damage again and again is no accident."""


async def open_run(job: OpenRunJob, options: SweepOptions) -> MlflowRun:
    """Find or create an MLflow run, waiting for MLflow as long as it takes, on the tracking queue."""
    run: MlflowRun = await workflow.execute_activity(
        "open_run",
        job,
        result_type=MlflowRun,
        task_queue=tracking_queue(options.eval_queue),
        **_patiently(),
        summary=job.name,
    )
    return run


async def close_run(job: CloseRunJob, options: SweepOptions) -> MlflowRun:
    """Bring an MLflow run to its end, waiting for MLflow as long as it takes, on the tracking queue."""
    run: MlflowRun = await workflow.execute_activity(
        "close_run",
        job,
        result_type=MlflowRun,
        task_queue=tracking_queue(options.eval_queue),
        **_patiently(),
        summary=f"{job.opening.name} {job.status}",
    )
    return run


async def make_report(job: ReportJob, options: SweepOptions) -> None:
    """Have a sweep's report made and logged, on the tracking queue; a few tries, for the sweep waits for its end."""
    await workflow.execute_activity(
        "make_report",
        job,
        task_queue=tracking_queue(options.eval_queue),
        start_to_close_timeout=_LONGEST_REPORT,
        heartbeat_timeout=timedelta(seconds=10),
        retry_policy=SOMETIMES,
        summary=f"report, {job.status}",
    )


async def make_snapshot(job: SnapshotJob, heartbeat_timeout_seconds: float) -> SnapshotRef:
    """Find or make the snapshot of a run's data."""
    snapshot: SnapshotRef = await workflow.execute_activity(
        "make_snapshot",
        job,
        result_type=SnapshotRef,
        **_patiently(heartbeat_timeout_seconds),
        summary="dataset",
    )
    return snapshot


async def claim_run(job: ClaimJob) -> Claimed:
    """Find out what equal runs have done of a run; waits, as long as it takes, for one that is being computed."""
    claimed: Claimed = await workflow.execute_activity(
        "claim_run",
        job,
        result_type=Claimed,
        **_patiently(),
        summary=job.run_id,
    )
    return claimed


async def look_up(job: LookUpJob) -> list[Forecast]:
    """Find out what would become of runs."""
    found: list[Forecast] = await workflow.execute_activity(
        "look_up",
        job,
        result_type=list[Forecast],
        **_patiently(),
        summary=f"{len(job.runs)} runs",
    )
    return found


async def with_whole_snapshot(
    work: Callable[[], Awaitable[T]], snapshot: SnapshotRef, making: SnapshotJob, heartbeat_timeout_seconds: float
) -> T:
    """Return what `work` returns; where it finds the snapshot damaged, have that made again, and try again.

    Raises:
        ApplicationError: SnapshotDamagedError, where the source no longer gives this snapshot.
    """
    num_rebuilds = 0
    while True:
        try:
            return await work()
        except ActivityError as error:
            is_damage = describe_failure(error).error_type == SnapshotDamagedError.error_type()
            if not is_damage or num_rebuilds == _MAX_REBUILDS or cancel_requested():
                raise
        num_rebuilds += 1
        made = await make_snapshot(making, heartbeat_timeout_seconds)
        if (made.key, made.digest) != (snapshot.key, snapshot.digest):
            raise ApplicationError(
                f"{snapshot.key} is damaged and cannot be made again: its source has changed, and now gives {made.key}",
                type=SnapshotDamagedError.error_type(),
                non_retryable=True,
            )


async def train(job: TrainJob, options: SweepOptions) -> TrainResult:
    """Make one attempt, on the training queue; ends when its process has, by cancellation too."""
    result: TrainResult = await workflow.execute_activity(
        "train",
        job,
        result_type=TrainResult,
        task_queue=options.training_queue,
        start_to_close_timeout=_LONGEST_ATTEMPT,
        heartbeat_timeout=timedelta(seconds=options.heartbeat_timeout_seconds),
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
        **_patiently(options.heartbeat_timeout_seconds),
        summary=f"test split, checkpoint of step {job.checkpoint.step}",
    )
    return result


async def predict(job: PredictJob, heartbeat_timeout_seconds: float) -> PredictResult:
    """Predict an input bundle with a checkpoint."""
    result: PredictResult = await workflow.execute_activity(
        "predict",
        job,
        result_type=PredictResult,
        **_patiently(heartbeat_timeout_seconds),
        summary=f"checkpoint of step {job.checkpoint.step}",
    )
    return result


def _patiently(heartbeat_timeout_seconds: float = 10.0) -> dict[str, Any]:
    """Return the options of a call that is tried for as long as that can help."""
    return {
        "start_to_close_timeout": _LONGEST_JOB,  # data or a model may be copied; a lost worker is noticed by heartbeat
        "heartbeat_timeout": timedelta(seconds=heartbeat_timeout_seconds),
        "retry_policy": PATIENT,
    }
