"""Delivers metric rows to MLflow in the background: a slow or absent server never delays a step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from bertpar.errors import TrackingError
from bertpar.tracking import MetricRow, log_rows

_RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)


class Outbox:
    """Rows go in when a checkpoint holds them; `undelivered` tells what the next checkpoint must hold again.

    Delivering a row twice adds nothing (tracking.log_rows), so that a resumed run just posts its checkpoint's rows.
    """

    def __init__(self, uri: str, mlflow_run_id: str, note: Callable[[str], None]) -> None:
        self._uri = uri
        self._mlflow_run_id = mlflow_run_id
        self._note = note
        self._queue: queue.Queue[list[MetricRow]] = queue.Queue()
        self._lock = threading.Lock()
        self._error: Exception | None = None
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

    def flush(self) -> None:
        """Wait until MLflow has every posted row, however long it is away; raises what ended the delivery."""
        self._queue.join()
        if self._error is not None:
            raise self._error

    def _deliver(self) -> None:
        while True:
            rows = self._queue.get()
            try:
                if self._error is None:
                    self._log_patiently(rows)
                    with self._lock:
                        del self._undelivered[: len(rows)]
            except Exception as error:  # raised by flush: this thread has nobody to tell
                self._error = error
            finally:
                self._queue.task_done()

    def _log_patiently(self, rows: Sequence[MetricRow]) -> None:
        num_failures = 0
        while True:
            try:
                return log_rows(self._uri, self._mlflow_run_id, rows)
            except TrackingError as error:
                if num_failures == 0:
                    self._note(f"tracking is away, rows wait: {error}")
                time.sleep(_RETRY_SECONDS[min(num_failures, len(_RETRY_SECONDS) - 1)])
                num_failures += 1
