"""Where the evaluation of a checkpoint lies in the store, under which names; imports no machine-learning library."""

from __future__ import annotations

from bertpar.events import CheckpointRef
from bertpar.store import Bundle, Store

REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.jsonl"
CONFUSION_FILE = "confusion_matrix.png"


def evaluation_key(run_id: str, checkpoint: CheckpointRef) -> str:
    """Return the key of the bundle with the score of `checkpoint` on the test split."""
    return f"runs/{run_id}/evaluation/{checkpoint.digest[:16]}"


def find_evaluation(store: Store, run_id: str, checkpoint: CheckpointRef) -> Bundle | None:
    """Return the evaluation of a run's checkpoint; None where there is none.

    It lies under the run itself, or under the run that made the checkpoint, where another took its results over.
    """
    maker = checkpoint.key.removeprefix("runs/").partition("/checkpoints/")[0]
    for owner in dict.fromkeys((run_id, maker)):
        if (bundle := store.find(evaluation_key(owner, checkpoint))) is not None:
            return bundle
    return None
