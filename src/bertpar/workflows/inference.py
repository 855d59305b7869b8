"""InferenceWorkflow: predicts a file of texts with one checkpoint, durably."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.events import InferenceInput, PredictResult
    from bertpar.workflows.failures import LIMITED


@workflow.defn
class InferenceWorkflow:
    @workflow.run
    async def run(self, job: InferenceInput) -> PredictResult:
        """Return where the predictions lie in the store."""
        result: PredictResult = await workflow.execute_activity(
            "predict",
            job.job,
            result_type=PredictResult,
            start_to_close_timeout=timedelta(days=7),
            heartbeat_timeout=timedelta(seconds=job.heartbeat_timeout_seconds),
            retry_policy=LIMITED,
            summary=f"checkpoint of step {job.job.checkpoint.step}",
        )
