"""Where the checkpoints of a run lie, and what can be read of them without a machine-learning library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bertpar.events import CheckpointRef, MetricRow
from bertpar.store import Bundle, Store

OPTIMIZER_FILE = "optimizer.safetensors"
ROWS_FILE = "metric_rows.json"
STATE_FILE = "training_state.json"
WEIGHTS_FILE = "model.safetensors"
NOT_OF_THE_MODEL = (OPTIMIZER_FILE, ROWS_FILE, STATE_FILE)
"""What a checkpoint holds beside a model that any program can load."""


def checkpoints_folder(run_id: str) -> str:
    """Return where in the store the checkpoints of all attempts at a run lie."""
    return f"runs/{run_id}/checkpoints"


def checkpoint_key(run_id: str, attempt: int, step: int) -> str:
    """Return the key of the checkpoint that `attempt` makes after `step`."""
    return f"{checkpoints_folder(run_id)}/attempt-{attempt}/step-{step:08d}"


def find_checkpoints(store: Store, run_id: str, known: Sequence[CheckpointRef] = ()) -> list[CheckpointRef]:
    """Return `known` and every other committed checkpoint of the run, newest first.

    The store may have more than the workflow knows: an attempt can die between a commit and its signal.
    """
    found = {checkpoint.key: checkpoint for checkpoint in known}
    for key in store.list(checkpoints_folder(run_id)):
        if key not in found and (bundle := store.find(key)) is not None:
            found[key] = reference_to(bundle)
    return sorted(found.values(), key=lambda c: (c.step, c.attempt), reverse=True)


def reference_to(bundle: Bundle) -> CheckpointRef:
    """Return the reference by which a committed checkpoint travels."""
    return CheckpointRef(
        key=bundle.key,
        digest=bundle.digest,
        step=bundle.meta["step"],
        attempt=bundle.meta["attempt"],
        num_bytes=bundle.num_bytes,
        metrics=bundle.meta["metrics"],
        work_seconds=bundle.meta.get("work_seconds", 0.0),
    )


def write_rows(folder: Path, rows: Sequence[MetricRow]) -> None:
    """Write into a checkpoint the metric rows that MLflow may not have."""
    (folder / ROWS_FILE).write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def read_rows(folder: Path) -> list[MetricRow]:
    """Return the metric rows of a checkpoint, with all their bits."""
    return [MetricRow(**row) for row in json.loads((folder / ROWS_FILE).read_text(encoding="utf-8"))]


def waiting_rows(store: Store, run_id: str) -> list[MetricRow]:
    """Return the metric rows that MLflow may not have when the run has ended: those of its newest checkpoint.

    Raises:
        CorruptError: that checkpoint is damaged.
    """
    newest = find_checkpoints(store, run_id)[:1]
    others = (OPTIMIZER_FILE, STATE_FILE, WEIGHTS_FILE)
    folders = [store.fetch(checkpoint.key, digest=checkpoint.digest, unread=others) for checkpoint in newest]
    return [row for folder in folders for row in read_rows(folder)]
