"""EvaluationWorkflow: scores a run's best checkpoint on the test split, once."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.events import EvaluateJob, EvaluateResult, SnapshotJob
    from bertpar.states import EvaluationInput
    from bertpar.workflows import calls


@workflow.defn
class EvaluationWorkflow:
    @workflow.run
    async def run(self, job: EvaluationInput) -> EvaluateResult:
        """Return the test metrics."""
        options = job.options
        evaluation = EvaluateJob(
            store_root=options.store_root,
            run_id=job.run.run_id,
            spec_key=job.run.spec_key,
            snapshot=job.snapshot,
            checkpoint=job.training.best,
            code=options.code,
            kept_with=job.training if options.cache == "on" else None,
            demand=job.run.demand,
        )
        return await calls.with_whole_snapshot(
            lambda: calls.evaluate(evaluation, options),
            job.snapshot,
            SnapshotJob(store_root=options.store_root, spec_key=job.run.spec_key),
            options.heartbeat_timeout_seconds,
        )
