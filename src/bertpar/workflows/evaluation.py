"""EvaluationWorkflow: scores a run's best checkpoint on the test split, once, and closes its MLflow run."""

from __future__ import annotations

import asyncio
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import CloseRunJob, EvaluateJob, EvaluateResult, EvaluationInput
    from bertpar.workflows import calls


@workflow.defn
class EvaluationWorkflow:
    @workflow.run
    async def run(self, job: EvaluationInput) -> EvaluateResult:
        """Return the test metrics; the MLflow run is closed whatever happens."""
        try:
            result = await calls.evaluate(_evaluate_job(job), job.options)
        except BaseException as error:
            status: Literal["KILLED", "FAILED"] = "KILLED" if is_cancelled_exception(error) else "FAILED"
            await asyncio.shield(calls.close_run(_close_job(job, status)))
            raise
        await asyncio.shield(calls.close_run(_close_job(job, "FINISHED")))
        return result


def _evaluate_job(job: EvaluationInput) -> EvaluateJob:
    return EvaluateJob(
        store_root=job.options.store_root,
        run_id=job.run.run_id,
        spec_key=job.run.spec_key,
        snapshot=job.snapshot,
        checkpoint=job.checkpoint,
        tracking=job.options.tracking,
        mlflow_run_id=job.mlflow_run_id,
        timestamp_ms=int(workflow.now().timestamp() * 1000),
    )


def _close_job(job: EvaluationInput, status: Literal["FINISHED", "FAILED", "KILLED"]) -> CloseRunJob:
    return CloseRunJob(
        tracking=job.options.tracking,
        mlflow_run_id=job.mlflow_run_id,
        status=status,
        tags={"bertpar.attempt": str(job.num_attempts), "bertpar.best_step": str(job.checkpoint.step)},
    )
