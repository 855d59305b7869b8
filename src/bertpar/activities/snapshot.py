"""The preparation of a dataset, once per store."""

from __future__ import annotations

from temporalio import activity

from bertpar.activities._job import run_with_heartbeats
from bertpar.activities._slot import slot_for_evaluation
from bertpar.events import SnapshotJob, SnapshotRef
from bertpar.spec import SMALLEST_DEMAND


@activity.defn
async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
    """Return the snapshot that the run's data and tokenizer make; build it only if the store lacks it."""
    async with slot_for_evaluation(SMALLEST_DEMAND):
        return await run_with_heartbeats("snapshot", job, SnapshotRef)
