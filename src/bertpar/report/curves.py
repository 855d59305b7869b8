"""Learning curves, read from MLflow, which is imported when they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertpar.report.contents import Curve, Curves
from bertpar.tracking.address import sqlite_path
from bertpar.tracking.connection import mlflow_client

TRAIN_LOSS = "train/loss"
MOST_POINTS = 200
"""Of one curve: more cannot be seen."""


def read_curves(tracking_uri: str, objective: str, mlflow_run_ids: Mapping[str, str]) -> tuple[Curves, ...]:
    """Return the curves of the runs, given by their MLflow runs' ids; none where the database is not there.

    Raises:
        TrackingError: MLflow cannot be reached, or a run was deleted there.
    """
    database = sqlite_path(tracking_uri)
    if database is not None and not database.exists():  # it would be made
        return ()
    with mlflow_client(tracking_uri) as client:
        return tuple(
            Curves(
                run_id=run_id,
                validation=_read(client, mlflow_run_id, objective),
                train_loss=_read(client, mlflow_run_id, TRAIN_LOSS),
            )
            for run_id, mlflow_run_id in mlflow_run_ids.items()
        )


def _read(client: Any, mlflow_run_id: str, key: str) -> Curve:
    by_step = {metric.step: float(metric.value) for metric in client.get_metric_history(mlflow_run_id, key)}
    return thinned(tuple(sorted(by_step.items())))


def thinned(curve: Curve) -> Curve:
    """Return at most MOST_POINTS points: means of neighbours, each at the last of their steps."""
    size = -(-len(curve) // MOST_POINTS)
    if size <= 1:
        return curve
    parts = [curve[i : i + size] for i in range(0, len(curve), size)]
    return tuple((part[-1][0], sum(value for _, value in part) / len(part)) for part in parts)
