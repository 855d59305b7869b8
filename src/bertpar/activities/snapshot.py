"""The preparation of a dataset, once per store."""

from __future__ import annotations

from temporalio import activity

from bertpar.activities._job import run_with_heartbeats
from bertpar.events import SnapshotJob, SnapshotRef


@activity.defn
async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
    """Return the snapshot that the run's data and tokenizer make; build it only if the store lacks it."""
    return await run_with_heartbeats("snapshot", job, SnapshotRef)
