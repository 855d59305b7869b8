"""Metric rows and files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertpar.tracking.connection import mlflow_client

_METRICS_PER_BATCH = 1000  # MLflow's limit


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One value of one metric. MLflow tells rows apart by all four: a new time makes a second row."""

    key: str
    value: float
    step: int
    timestamp_ms: int
    """Milliseconds since 1970."""


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


def log_artifacts(uri: str, run_id: str, files: Sequence[Path], artifact_path: str) -> None:
    """Copy the files into the folder `artifact_path` of the run; files of the same names are replaced.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    with mlflow_client(uri) as client:
        for file in files:
            client.log_artifact(run_id, str(file), artifact_path)
