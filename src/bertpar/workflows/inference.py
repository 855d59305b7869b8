"""InferenceWorkflow: predicts a file of texts with one checkpoint, durably."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.events import PredictResult, SnapshotJob
    from bertpar.states import InferenceInput
    from bertpar.workflows import calls


@workflow.defn
class InferenceWorkflow:
    @workflow.run
    async def run(self, job: InferenceInput) -> PredictResult:
        """Return where the predictions lie in the store."""
        prediction, heartbeat_timeout_seconds = job.job, job.heartbeat_timeout_seconds
        return await calls.with_whole_snapshot(
            lambda: calls.predict(prediction, heartbeat_timeout_seconds),
            prediction.snapshot,
            SnapshotJob(store_root=prediction.store_root, spec_key=prediction.spec_key),
            heartbeat_timeout_seconds,
        )
