"""A checkpoint of training: a Hugging Face folder plus what is needed to go on, bit for bit.

Everything random or scheduled is a function of the step (plan.py), so that a checkpoint holds just the weights, the
optimizer's moments, the step, and what has been measured and not yet delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from bertpar.checkpoints import read_rows, reference_to, write_rows
from bertpar.errors import CorruptError
from bertpar.events import CheckpointRef, MetricRow
from bertpar.store import Store
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
    inexact: list[str] = field(default_factory=list)
    """What made the run another than an undisturbed one, one sentence each."""


def save_checkpoint(
    store: Store,
    key: str,
    state: TrainingState,
    model: PreTrainedModel,
    optimizer: dict[str, Any],
    meta: Mapping[str, Any],
) -> CheckpointRef:
    """Make the present state durable, with the optimizer's, and return the reference to resume it by."""
    metrics = state.validations[-1].metrics if state.validations and state.validations[-1].step == state.step else {}

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        torch.save({"optimizer": optimizer, "state": _as_plain(state)}, folder / STATE_FILE)
        write_rows(folder, state.rows)

    return reference_to(store.publish(key, fill, {"step": state.step, "metrics": metrics, **meta}))


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
        state = _from_plain(saved["state"], read_rows(folder))
        assert state.step == candidate.step
        state = replace(state, checkpoints=[*state.checkpoints, candidate])
        return state, saved["optimizer"]
    return TrainingState(), None


def _as_plain(state: TrainingState) -> dict[str, Any]:
    plain = asdict(state)
    del plain["rows"]  # in a file of their own
    return plain


def _from_plain(plain: dict[str, Any], rows: list[MetricRow]) -> TrainingState:
    return TrainingState(
        step=plain["step"],
        validations=[Validation(**v) for v in plain["validations"]],
        checkpoints=[CheckpointRef(**c) for c in plain["checkpoints"]],
        window=plain["window"],
        rows=rows,
        inexact=plain["inexact"],
    )


def is_intact(store: Store, checkpoint: CheckpointRef, note: Callable[[str], None]) -> bool:
    """Say whether the checkpoint is there with the digest that it had."""
    try:
        store.fetch(checkpoint.key, digest=checkpoint.digest)
    except CorruptError as error:
        note(f"checkpoint of step {checkpoint.step} is not usable, it is made again: {error}")
        return False
    return True
