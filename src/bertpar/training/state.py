"""What a run remembers, and how it goes on from a checkpoint: a Hugging Face folder plus what that takes, bit for bit.

Everything random or scheduled is a function of the step (plan.py), so that a checkpoint holds just the weights, the
optimizer's moments, the step, and what has been measured and not yet delivered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from bertpar.checkpoints import NOT_OF_THE_MODEL, OPTIMIZER_FILE, STATE_FILE, WEIGHTS_FILE, read_rows
from bertpar.errors import ModelError
from bertpar.events import CheckpointRef, MetricRow
from bertpar.spec import CheckpointSpec, StartSpec
from bertpar.store import Store
from bertpar.training.selection import Validation, best_validation


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
    work_seconds: float = 0.0
    """Wall time that led here, in whatever attempts: of what was lost on the way nothing."""
    continues: CheckpointRef | None = None
    """The equal run's checkpoint that the run went on from."""


def restore_newest(
    store: Store,
    candidates: Sequence[CheckpointRef],
    model: PreTrainedModel,
    spec: CheckpointSpec,
    note: Callable[[str], None],
) -> tuple[TrainingState, dict[str, Any] | None]:
    """Load the first usable candidate into `model`; return its state and the optimizer's.

    One is usable if it is intact, and so is the best checkpoint up to its step: a run that goes on from it can end.
    What is damaged is set aside, with a note that names it, and trained again. Without a usable one, training starts
    at step 0.
    """
    for candidate in candidates:
        folder = _fetch_intact(store, candidate, note)
        if folder is None:
            continue
        saved = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        state = _from_plain(saved["state"], read_rows(folder))
        assert state.step == candidate.step
        best = _best_checkpoint([*state.checkpoints, candidate], state.validations, spec)
        if best is not None and best != candidate and not is_intact(store, best, note):
            note(f"checkpoint of step {candidate.step} is passed over: the best one before it has to be made again")
            continue
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        state.checkpoints = [*(c for c in state.checkpoints if _exists(store, c)), candidate]
        moments = _states_of(load_file(folder / OPTIMIZER_FILE))
        return state, {"state": moments, "param_groups": saved["param_groups"]}
    return TrainingState(), None


def load_start(store: Store, start: StartSpec, model: PreTrainedModel) -> None:
    """Give the model the weights of the checkpoint that a fork begins with.

    Raises:
        CorruptError: it is gone or damaged.
        ModelError: it is one of a model of another shape.
    """
    folder = store.fetch(start.key, digest=start.digest, unread=NOT_OF_THE_MODEL)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except RuntimeError as error:
        raise ModelError(
            f"a fork of {start.run_id} must have its model and number of labels, or its weights do not fit: {error}. "
            "Leave out what changes them"
        ) from error


def is_intact(store: Store, checkpoint: CheckpointRef, note: Callable[[str], None]) -> bool:
    """Say whether the checkpoint is there, whole and the one meant; if not, note it, and set aside what is damaged."""
    return _fetch_intact(store, checkpoint, note) is not None


def _fetch_intact(store: Store, checkpoint: CheckpointRef, note: Callable[[str], None]) -> Path | None:
    def note_which(text: str) -> None:
        note(f"checkpoint of step {checkpoint.step} is not usable, the one before it is tried: {text}")

    return store.fetch_intact(checkpoint.key, note_which, digest=checkpoint.digest)


def _exists(store: Store, checkpoint: CheckpointRef) -> bool:
    """Say whether a checkpoint that an older state lists has not been pruned or set aside since."""
    bundle = store.find(checkpoint.key)
    return bundle is not None and bundle.digest == checkpoint.digest


def _best_checkpoint(
    checkpoints: Sequence[CheckpointRef], validations: Sequence[Validation], spec: CheckpointSpec
) -> CheckpointRef | None:
    """Return the checkpoint of the best validation; None before the first one."""
    if not validations:
        return None
    step = best_validation(validations, spec).step
    return next(c for c in reversed(checkpoints) if c.step == step)


def named_tensors(states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return an optimizer's tensors under names for a file: `INDEX.NAME`, of the parameter with that index."""
    return {f"{index}.{name}": tensor for index, state in states.items() for name, tensor in state.items()}


def _states_of(named: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return what `named_tensors` was given."""
    states: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in named.items():
        index, _, name = full_name.partition(".")
        states.setdefault(int(index), {})[name] = tensor
    return states


def _from_plain(plain: dict[str, Any], rows: list[MetricRow]) -> TrainingState:
    return TrainingState(
        step=plain["step"],
        validations=[Validation(**v) for v in plain["validations"]],
        checkpoints=[CheckpointRef(**c) for c in plain["checkpoints"]],
        window=plain["window"],
        rows=rows,
        inexact=plain["inexact"],
        work_seconds=plain["work_seconds"],
        continues=CheckpointRef(**plain["continues"]) if plain["continues"] is not None else None,
    )
