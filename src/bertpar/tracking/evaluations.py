"""What MLflow is told of an evaluation: metrics, files, and the model as a folder that `from_pretrained` reads."""

from __future__ import annotations

from bertpar.checkpoints import NOT_OF_THE_MODEL
from bertpar.events import MetricRow, SnapshotRef
from bertpar.mlflow_jobs import EvaluationRecord
from bertpar.store import Store
from bertpar.tracking.rows import log_artifacts, log_missing_rows


def log_evaluation(uri: str, run_id: str, record: EvaluationRecord, snapshot: SnapshotRef, store: Store) -> None:
    """Log the evaluation's files, the model with its tokenizer, and, last, the metrics: who sees them finds the files.

    Raises:
        CorruptError: a bundle is missing or damaged.
        TrackingError: MLflow cannot be reached or refuses.
    """
    _log_files(uri, run_id, "evaluation", record.result.key, store, record.result.digest)
    if record.model:
        _log_files(uri, run_id, "model", record.checkpoint.key, store, record.checkpoint.digest)
        _log_files(uri, run_id, "model", snapshot.tokenizer_key, store)
    rows = [
        MetricRow(key=key, value=value, step=record.checkpoint.step, timestamp_ms=record.timestamp_ms)
        for key, value in record.result.metrics.items()
    ]
    log_missing_rows(uri, run_id, rows)


def _log_files(uri: str, run_id: str, artifact_path: str, key: str, store: Store, digest: str | None = None) -> None:
    folder, bundle = store.fetch(key, digest=digest, unread=NOT_OF_THE_MODEL), store.find(key)
    assert bundle is not None
    log_artifacts(uri, run_id, [folder / name for name in bundle.files if name not in NOT_OF_THE_MODEL], artifact_path)
