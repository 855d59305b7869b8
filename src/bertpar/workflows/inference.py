"""InferenceWorkflow: predicts a file of texts with one checkpoint, durably."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.events import InferenceInput, PredictResult
    from bertpar.workflows import calls


@workflow.defn
class InferenceWorkflow:
    @workflow.run
    async def run(self, job: InferenceInput) -> PredictResult:
        """Return where the predictions lie in the store."""
        return await calls.predict(job.job, job.heartbeat_timeout_seconds)
