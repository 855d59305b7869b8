"""Where the evaluation of a checkpoint lies in the store, under which names; imports no machine-learning library."""

from __future__ import annotations

from bertpar.events import CheckpointRef
from bertpar.states import RunState
from bertpar.store import Bundle, Store

REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.jsonl"
CONFUSION_FILE = "confusion_matrix.png"


def evaluation_key(run_id: str, checkpoint: CheckpointRef) -> str:
    """Return the key of the bundle with the score of `checkpoint` on the test split."""
    return f"runs/{run_id}/evaluation/{checkpoint.digest[:16]}"


def find_evaluation(store: Store, state: RunState) -> Bundle | None:
    """Return the evaluation of a completed run, its own or that of the run whose result it shows; None if there is none."""
    assert state.best is not None
    key = state.evaluation_key or evaluation_key(state.run.run_id, state.best)
    return store.find(key)
