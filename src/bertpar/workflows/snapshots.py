"""The snapshots of a sweep's data: runs that share one share its one activity too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.events import SnapshotJob, SnapshotRef
    from bertpar.states import RunRef, SweepOptions
    from bertpar.workflows import calls


class Snapshots:
    """Has each snapshot made once, whoever waits for it."""

    def __init__(self, options: SweepOptions, known: Mapping[str, SnapshotRef]) -> None:
        self.known = dict(known)
        """By RunRef.snapshot_request."""
        self._options = options
        self._making: dict[str, asyncio.Future[SnapshotRef]] = {}

    async def of(self, run: RunRef) -> SnapshotRef:
        """Return the run's snapshot as soon as it is made."""
        request = run.snapshot_request
        if request in self.known:
            return self.known[request]
        if request not in self._making:
            job = SnapshotJob(store_root=self._options.store_root, spec_key=run.spec_key)
            making = calls.make_snapshot(job, self._options.heartbeat_timeout_seconds)
            self._making[request] = asyncio.ensure_future(making)
        snapshot = await asyncio.shield(self._making[request])  # a cancelled run must not cancel its siblings'
        self.known[request] = snapshot
        return snapshot

    def forget_failed(self) -> None:
        """Let runs that are yet to come try again: what was wrong with the data may have been mended."""
        for request, making in list(self._making.items()):
            if making.done() and request not in self.known:
                del self._making[request]
