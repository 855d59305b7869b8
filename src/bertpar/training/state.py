"""A checkpoint of training: a Hugging Face folder plus what is needed to go on, bit for bit.

Everything random or scheduled is a function of the step (plan.py), so that a checkpoint holds just the weights, the
optimizer's moments, the step, and what has been measured and not yet delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from bertpar.errors import CorruptError
from bertpar.events import CheckpointRef
from bertpar.store import Bundle, Store
from bertpar.tracking import MetricRow
from bertpar.training.selection import Validation

STATE_FILE = "training_state.pt"


@dataclass(kw_only=True)
class TrainingState:
    """What a run has to remember between steps, beside weights and optimizer."""

    step: int = 0
    validations: list[Validation] = field(default_factory=list)
    checkpoints: list[CheckpointRef] = field(default_factory=list)
    """Those that exist, oldest first."""
    window: list[float] = field(default_factory=list)
    """Losses of the steps since the last logged row."""
    rows: list[MetricRow] = field(default_factory=list)
    """Metric rows that the tracking server may not have: they are logged (again) after this checkpoint."""


def save_checkpoint(
    store: Store,
    run_id: str,
    attempt: int,
    state: TrainingState,
    model: PreTrainedModel,
    optimizer: dict[str, Any],
) -> CheckpointRef:
    """Make the present state durable, with the optimizer's, and return the reference to resume it by."""
    metrics = state.validations[-1].metrics if state.validations and state.validations[-1].step == state.step else {}
    key = f"{checkpoints_folder(run_id)}/attempt-{attempt}/step-{state.step:08d}"

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        torch.save({"optimizer": optimizer, "state": _as_plain(state)}, folder / STATE_FILE)

    meta = {"step": state.step, "attempt": attempt, "metrics": metrics}
    return _reference(store.publish(key, fill, meta))


def checkpoints_folder(run_id: str) -> str:
    """Return where in the store the checkpoints of all attempts at a run lie."""
    return f"runs/{run_id}/checkpoints"


def find_checkpoints(store: Store, run_id: str, known: Sequence[CheckpointRef]) -> list[CheckpointRef]:
    """Return `known` and every other committed checkpoint of the run, newest first.

    The store may have more than the workflow knows: an attempt can die between a commit and its signal.
    """
    found = {checkpoint.key: checkpoint for checkpoint in known}
    for key in store.list(checkpoints_folder(run_id)):
        if key not in found and (bundle := store.find(key)) is not None:
            found[key] = _reference(bundle)
    return sorted(found.values(), key=lambda c: (c.step, c.attempt), reverse=True)


def _reference(bundle: Bundle) -> CheckpointRef:
    return CheckpointRef(
        key=bundle.key,
        digest=bundle.digest,
        step=bundle.meta["step"],
        attempt=bundle.meta["attempt"],
        num_bytes=bundle.num_bytes,
        metrics=bundle.meta["metrics"],
    )


def restore_newest(
    store: Store,
    candidates: Sequence[CheckpointRef],
    model: PreTrainedModel,
    note: Callable[[str], None],
) -> tuple[TrainingState, dict[str, Any] | None]:
    """Load the first candidate whose digest verifies into `model`; return its state and the optimizer's.

    A damaged one is passed over with a note that names it. Without a good one, training starts at step 0.
    """
    for candidate in candidates:
        try:
            folder = store.fetch(candidate.key, digest=candidate.digest)
            saved = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        except CorruptError as error:
            note(f"checkpoint of step {candidate.step} is not usable, trying the one before: {error}")
            continue
        model.load_state_dict(load_file(folder / "model.safetensors"))
        state = _from_plain(saved["state"])
        assert state.step == candidate.step
        state = replace(state, checkpoints=[*state.checkpoints, candidate])
        return state, saved["optimizer"]
    return TrainingState(), None


def _as_plain(state: TrainingState) -> dict[str, Any]:
    return asdict(state)


def _from_plain(plain: dict[str, Any]) -> TrainingState:
    return TrainingState(
        step=plain["step"],
        validations=[Validation(**v) for v in plain["validations"]],
        checkpoints=[CheckpointRef(**c) for c in plain["checkpoints"]],
        window=plain["window"],
        rows=[MetricRow(**r) for r in plain["rows"]],
    )
