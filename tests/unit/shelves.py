"""Stores with checkpoints as trainings leave them, but with a few bytes instead of weights."""

from __future__ import annotations

from pathlib import Path

from bertpar.checkpoints import checkpoint_key
from bertpar.store import Store

SETTINGS = {"checkpoint.monitor": "val/accuracy", "checkpoint.mode": "max"}


def add_checkpoint(
    store: Store, run_id: str, step: int, accuracy: float | None = None, *, attempt: int = 1, snapshot: str = "d"
) -> str:
    """Publish a checkpoint, validated if `accuracy` is given, and return its key."""
    meta = {
        "step": step,
        "attempt": attempt,
        "metrics": {} if accuracy is None else {"val/accuracy": accuracy},
        "run": {**SETTINGS, "snapshot": snapshot},
    }
    return store.publish(checkpoint_key(run_id, attempt, step), write_weights, meta).key


def add_evaluation(store: Store, run_id: str, checkpoint: str) -> None:
    """Have the run be finished, with that checkpoint as its best."""
    meta = {"run_id": run_id, "checkpoint": checkpoint}
    store.publish(f"runs/{run_id}/evaluation/{checkpoint[-4:]}", write_weights, meta)


def write_weights(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(1000))
