"""Metric rows and files of a run."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from bertpar.events import MetricRow
from bertpar.tracking.connection import mlflow_client

EXAMPLES_PER_SECOND = "train/examples_per_second"
"""A measured time: the only metric that another try at the same step gives another value."""

_METRICS_PER_BATCH = 1000  # MLflow's limit
CONTRADICTION_TAG = "bertpar.contradiction"
"""The tag that says of a run that a step was made a second time with other results."""


def log_rows(uri: str, run_id: str, rows: Sequence[MetricRow]) -> None:
    """Log the rows; those that the run has already add nothing.

    Raises:
        TrackingError: MLflow cannot be reached or refuses. Some rows may have arrived: log all of them again.
    """
    if not rows:
        return
    with mlflow_client(uri) as client:
        from mlflow.entities import Metric

        metrics = [Metric(row.key, row.value, row.timestamp_ms, row.step) for row in rows]
        for start in range(0, len(metrics), _METRICS_PER_BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH], synchronous=True)


def read_rows(uri: str, run_id: str) -> list[MetricRow]:
    """Return every metric row of a run.

    Raises:
        TrackingRefusedError: there is no such run.
        TrackingError: MLflow cannot be reached.
    """
    with mlflow_client(uri) as client:
        return [
            MetricRow(key=key, value=metric.value, step=metric.step, timestamp_ms=metric.timestamp)
            for key in client.get_run(run_id).data.metrics
            for metric in client.get_metric_history(run_id, key)
        ]


class RowLog:
    """Logs rows to one run, each step of a metric once.

    A step that is made a second time, after a fall back to an older checkpoint, makes its rows again, under another
    time. With the same bits they add nothing. With others something is wrong: the first stays, and a tag says so.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri = uri
        self._run_id = run_id
        self._there: dict[str, dict[int, float]] = {}
        """Values by step, of each metric that rows came of: the run's own, read once, and those logged since."""

    def add(self, rows: Sequence[MetricRow]) -> list[str]:
        """Log those of the rows that are not there; return a sentence for each that is there with other bits.

        Raises:
            TrackingError: MLflow cannot be reached or refuses. Some rows may have arrived: add all of them again.
        """
        self._read_histories({row.key for row in rows})
        new: dict[tuple[str, int], MetricRow] = {}
        contradictions = []
        for row in rows:
            first = new.get((row.key, row.step))
            value = first.value if first is not None else self._there[row.key].get(row.step)
            if value is None:
                new[row.key, row.step] = row
            elif row.key != EXAMPLES_PER_SECOND and not _same_bits(value, row.value):
                contradictions.append(
                    f"{row.key} of step {row.step} is {value!r}, and was {row.value!r} when it was made again"
                )
        log_rows(self._uri, self._run_id, list(new.values()))
        for row in new.values():
            self._there[row.key][row.step] = row.value
        if contradictions:
            with mlflow_client(self._uri) as client:
                client.set_tag(self._run_id, CONTRADICTION_TAG, contradictions[0])
        return contradictions

    def _read_histories(self, keys: set[str]) -> None:
        for key in keys - self._there.keys():
            with mlflow_client(self._uri) as client:
                history = client.get_metric_history(self._run_id, key)
            self._there[key] = {metric.step: metric.value for metric in history}


def log_missing_rows(uri: str, run_id: str, rows: Sequence[MetricRow]) -> list[str]:
    """Log those of the rows that the run does not have, as RowLog.add."""
    return RowLog(uri, run_id).add(rows)


def _same_bits(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or _as_stored(one) == _as_stored(other)


def _as_stored(value: float) -> float:
    # MLflow stores infinities as the largest float, and -0.0 as 0.0
    return max(-sys.float_info.max, min(sys.float_info.max, value))


def log_artifacts(uri: str, run_id: str, files: Sequence[Path], artifact_path: str) -> None:
    """Copy the files into the folder `artifact_path` of the run; files of the same names are replaced.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    with mlflow_client(uri) as client:
        for file in files:
            client.log_artifact(run_id, str(file), artifact_path)


def log_page(uri: str, run_id: str, name: str, html: str) -> None:
    """Keep a page as the artifact `name` of the run; one of the same name is replaced.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    with mlflow_client(uri) as client:
        client.log_text(run_id, html, name)
