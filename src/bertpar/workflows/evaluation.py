"""EvaluationWorkflow: scores a run's best checkpoint on the test split, once, and closes its MLflow run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import CloseRunJob, EvaluateJob, EvaluateResult, EvaluationInput
    from bertpar.workflows.failures import LIMITED, PATIENT

_LONGEST_EVALUATION = timedelta(days=7)


@workflow.defn
class EvaluationWorkflow:
    @workflow.run
    async def run(self, job: EvaluationInput) -> EvaluateResult:
        """Return the test metrics; the MLflow run is closed whatever happens."""
        try:
            result = await self._evaluate(job)
        except BaseException as error:
            status: Literal["KILLED", "FAILED"] = "KILLED" if is_cancelled_exception(error) else "FAILED"
            await asyncio.shield(_close_run(job, status))
            raise
        await asyncio.shield(_close_run(job, "FINISHED"))
        return result

    async def _evaluate(self, job: EvaluationInput) -> EvaluateResult:
        options = job.options
        result: EvaluateResult = await workflow.execute_activity(
            "evaluate",
            EvaluateJob(
                store_root=options.store_root,
                run_id=job.run.run_id,
                spec_key=job.run.spec_key,
                snapshot=job.snapshot,
                checkpoint=job.checkpoint,
                tracking=options.tracking,
                mlflow_run_id=job.mlflow_run_id,
                timestamp_ms=int(workflow.now().timestamp() * 1000),
            ),
            result_type=EvaluateResult,
            start_to_close_timeout=_LONGEST_EVALUATION,
            heartbeat_timeout=timedelta(seconds=options.heartbeat_timeout_seconds),
            retry_policy=LIMITED,
            summary=f"test split, checkpoint of step {job.checkpoint.step}",
        )


async def _close_run(job: EvaluationInput, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    await workflow.execute_activity(
        "close_run",
        CloseRunJob(
            tracking=job.options.tracking,
            mlflow_run_id=job.mlflow_run_id,
            status=status,
            tags={"bertpar.attempt": str(job.num_attempts), "bertpar.best_step": str(job.checkpoint.step)},
        ),
        start_to_close_timeout=timedelta(minutes=10),
        retry_policy=PATIENT,
        summary=f"MLflow run {status}",
    )
