"""How a checkpoint comes about: training stops for a copy in memory, and goes on while files are made of it.

The copy's room is used again by the next one: a training needs memory for weights, gradients, two moments, and one
copy of weights and moments.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bertpar.checkpoints import OPTIMIZER_FILE, STATE_FILE, WEIGHTS_FILE, reference_to, write_rows
from bertpar.events import CheckpointRef, MetricRow
from bertpar.store import FileDigest, Store, write_hashed
from bertpar.training.state import TrainingState, named_tensors
from bertpar.training.tensor_file import TensorFile


class CheckpointCopy:
    """The state of a training at one step, apart from the training, which goes on meanwhile."""

    def __init__(self) -> None:
        self._weights, self._moments = TensorFile(), TensorFile()
        self._plain = ""
        self._config: Any = None
        self._rows: list[MetricRow] = []
        self._meta: dict[str, Any] = {}

    def take(self, state: TrainingState, model: PreTrainedModel, optimizer: Mapping[str, Any]) -> CheckpointCopy:
        """Copy all that is to be made durable; the copy before is gone."""
        self._weights.keep(model.state_dict())
        self._moments.keep(named_tensors(optimizer["state"]))
        self._plain = json.dumps({"state": _as_plain(state), "param_groups": optimizer["param_groups"]})
        self._config = self._config or _config_of(model)
        self._rows = list(state.rows)
        self._meta = _meta_of(state)
        return self

    def publish(self, store: Store, key: str, meta: Mapping[str, Any]) -> CheckpointRef:
        """Make the copy durable and return the reference to resume it by; safe to call again where the store failed."""
        return reference_to(store.publish(key, self._write, self._meta | dict(meta)))

    def _write(self, folder: Path) -> dict[str, FileDigest]:
        self._config.save_pretrained(folder)
        write_rows(folder, self._rows)
        (folder / STATE_FILE).write_text(self._plain, encoding="utf-8")
        files = {WEIGHTS_FILE: self._weights, OPTIMIZER_FILE: self._moments}
        return {name: write_hashed(folder / name, *tensors.content()) for name, tensors in files.items()}


def _config_of(model: PreTrainedModel) -> Any:
    """Return the model's configuration as `from_pretrained` wants to find it beside the weights."""
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.dtype).removeprefix("torch.")
    return config


def _meta_of(state: TrainingState) -> dict[str, Any]:
    """Return what the manifest says of the state, for those who read no other file."""
    newest = state.validations[-1] if state.validations else None
    return {
        "step": state.step,
        "metrics": newest.metrics if newest is not None and newest.step == state.step else {},
        "exact": not state.inexact,
        "work_seconds": state.work_seconds,
    }


def _as_plain(state: TrainingState) -> dict[str, Any]:
    plain = asdict(state)
    del plain["rows"]  # in a file of their own
    return plain
