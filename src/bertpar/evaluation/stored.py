"""Where the evaluation of a checkpoint lies in the store, under which names; imports no machine-learning library."""

from __future__ import annotations

from bertpar.events import CheckpointRef

REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.jsonl"
CONFUSION_FILE = "confusion_matrix.png"


def evaluation_key(run_id: str, checkpoint: CheckpointRef) -> str:
    """Return the key of the bundle with the score of `checkpoint` on the test split."""
    return f"runs/{run_id}/evaluation/{checkpoint.digest[:16]}"
