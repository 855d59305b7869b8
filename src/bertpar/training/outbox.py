"""Delivers metric rows to MLflow in the background: a slow or absent server never delays a step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from bertpar import faults
from bertpar.errors import BertparError, StoreError, TrackingError, TrackingRefusedError
from bertpar.events import MetricRow, TrainJob
from bertpar.store import Store
from bertpar.tracking import RowLog, find_opened
from bertpar.training.fence import Fence

_RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
_SECONDS_BETWEEN_LOOKS = 1.0
_LONGEST_DELIVERY_SECONDS = 10.0
"""So long the end of a training waits for a request that is under way."""


class Outbox:
    """Rows go in when a checkpoint holds them; `undelivered` tells what the next checkpoint must hold again.

    What is still here when the training ends is delivered from its last checkpoint, by whoever closes the MLflow run.
    """

    def __init__(self, job: TrainJob, store: Store, fence: Fence, note: Callable[[str], None]) -> None:
        self._job = job
        self._store = store
        self._fence = fence
        self._note = note
        self._queue: queue.Queue[list[MetricRow] | None] = queue.Queue()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._undelivered: list[MetricRow] = []
        self._thread = threading.Thread(target=self._deliver, name="outbox", daemon=True)
        self._thread.start()

    def post(self, rows: Sequence[MetricRow]) -> None:
        """Queue rows that a durable checkpoint holds."""
        if rows:
            with self._lock:
                self._undelivered.extend(rows)
            self._queue.put(list(rows))

    def undelivered(self) -> list[MetricRow]:
        """Return the posted rows that MLflow has not yet acknowledged, oldest first."""
        with self._lock:
            return list(self._undelivered)

    def close(self) -> None:
        """Deliver what is left if MLflow takes it now, and end: whoever delivers the rest must not meet this one."""
        self._ending.set()
        self._queue.put(None)
        self._thread.join(_LONGEST_DELIVERY_SECONDS)

    def _deliver(self) -> None:
        try:
            mlflow_run_id = self._wait_until_opened()
            if mlflow_run_id is None:
                return
            row_log = RowLog(self._job.tracking.uri, mlflow_run_id)
            while (rows := self._queue.get()) is not None:
                if not self._log_patiently(row_log, rows):
                    return
                faults.reach("metrics.logged")
                with self._lock:
                    del self._undelivered[: len(rows)]
        except BertparError as error:  # the rows stay in the checkpoints; whoever closes the run tells of it
            self._note(f"metric rows are no longer delivered: {error}")

    def _wait_until_opened(self) -> str | None:
        """Return the MLflow run's id; None if the end comes first."""
        while True:
            try:
                if (opened := find_opened(self._store, self._job.run_id)) is not None:
                    return opened.run_id
            except StoreError as error:
                self._note(f"metric rows wait for the store: {error}")
            if self._ending.wait(_SECONDS_BETWEEN_LOOKS):
                return None

    def _log_patiently(self, row_log: RowLog, rows: Sequence[MetricRow]) -> bool:
        """Return whether MLflow took the rows before the end came."""
        num_failures = 0
        while True:
            try:
                self._fence.check()
                contradictions = row_log.add(rows)
            except TrackingRefusedError:
                raise
            except (TrackingError, StoreError) as error:
                if num_failures == 0:
                    self._note(f"metric rows wait: {error}")
                if self._ending.wait(_RETRY_SECONDS[min(num_failures, len(_RETRY_SECONDS) - 1)]):
                    return False
                num_failures += 1
            else:
                for contradiction in contradictions:
                    self._note(f"contradiction in MLflow: {contradiction}")
                return True
