"""PlanWorkflow: what would become of a sweep's runs, were it submitted now. It prepares data, and computes nothing."""

from __future__ import annotations

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.claims import Forecast, LookUpJob, LookUpRun
    from bertpar.events import SnapshotJob
    from bertpar.states import PlanInput
    from bertpar.workflows import calls


@workflow.defn
class PlanWorkflow:
    @workflow.run
    async def run(self, plan: PlanInput) -> list[Forecast]:
        """Return a forecast for each run, in their order; fails as a run would whose data cannot be prepared."""
        options = plan.options
        first_with = {run.snapshot_request: run for run in reversed(plan.runs)}
        jobs = [SnapshotJob(store_root=options.store_root, spec_key=run.spec_key) for run in first_with.values()]
        made = await asyncio.gather(*(calls.make_snapshot(j, options.heartbeat_timeout_seconds) for j in jobs))
        runs = tuple(
            LookUpRun(run_id=run.run_id, spec_key=run.spec_key, snapshot_request=run.snapshot_request)
            for run in plan.runs
        )
        return await calls.look_up(
            LookUpJob(
                store_root=options.store_root,
                runs=runs,
                snapshots=dict(zip(first_with, made, strict=True)),
                code=options.code,
                cache=options.cache,
            )
        )
