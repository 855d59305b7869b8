"""Metric rows and files of a run."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class AlreadyThere:
    """What a run had before rows were logged to it."""

    newest_step: int
    """Of the same metrics; -1 for none. Later steps cannot be there a second time."""
    contradictions: tuple[str, ...]
    """A sentence for each row that is there with other bits."""


def log_missing_rows(uri: str, run_id: str, rows: Sequence[MetricRow]) -> AlreadyThere:
    """Log those of the rows whose step the run does not have, and return what it had.

    A step that is made a second time, after a fall back to an older checkpoint, has its rows already, under another
    time. With the same bits it is left as it is. With others something is wrong: the first stays, and a tag says so.

    Raises:
        TrackingError: MLflow cannot be reached or refuses. Some rows may have arrived: log all of them again.
    """
    if not rows:
        return AlreadyThere(newest_step=-1, contradictions=())
    with mlflow_client(uri) as client:
        there = {
            (key, metric.step): metric.value
            for key in {row.key for row in rows}
            for metric in client.get_metric_history(run_id, key)
        }
    log_rows(uri, run_id, [row for row in rows if (row.key, row.step) not in there])
    contradictions = [
        f"{row.key} of step {row.step} is {there[row.key, row.step]!r}, and was {row.value!r} when it was made again"
        for row in rows
        if (row.key, row.step) in there
        and row.key != EXAMPLES_PER_SECOND
        and not _same_bits(there[row.key, row.step], row.value)
    ]
    if contradictions:
        with mlflow_client(uri) as client:
            client.set_tag(run_id, CONTRADICTION_TAG, contradictions[0])
    return AlreadyThere(newest_step=max((step for _, step in there), default=-1), contradictions=tuple(contradictions))


def _same_bits(stored: Any, value: float) -> bool:
    if math.isnan(value):
        return math.isnan(stored)
    # MLflow stores infinities as the largest float, and -0.0 as 0.0
    return bool(stored == max(-sys.float_info.max, min(sys.float_info.max, value)))


def log_artifacts(uri: str, run_id: str, files: Sequence[Path], artifact_path: str) -> None:
    """Copy the files into the folder `artifact_path` of the run; files of the same names are replaced.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    with mlflow_client(uri) as client:
        for file in files:
            client.log_artifact(run_id, str(file), artifact_path)
