"""What evaluation and prediction start from: a result that is there already, or a checkpoint, ready to predict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bertpar.checkpoints import NOT_OF_THE_MODEL
from bertpar.codec import fetch_spec
from bertpar.data.reading import fetch_tokenizer
from bertpar.errors import CheckpointDamagedError, CorruptError
from bertpar.evaluation.inference import OnProgress, TokenisedExamples, predict_logits
from bertpar.events import CheckpointRef, SnapshotRef
from bertpar.layout import Layout, layout_for
from bertpar.models import load_tokenizer
from bertpar.spec import ComputePrecision, RunSpec
from bertpar.store import Bundle, Store
from bertpar.torch_setup import attention_implementation, compute_precision, set_up_torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Emit = Callable[[str, Any], None]
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A checkpoint's model with float32 weights, on the GPU where there is one, with tokenizer and RunSpec."""

    spec: RunSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout

    @property
    def precision(self) -> ComputePrecision:
        """What outputs are computed with here."""
        return compute_precision(self.spec.trainer.eval_precision)

    def predict(self, examples: TokenisedExamples, on_progress: OnProgress) -> npt.NDArray[np.float32]:
        """Return the model's outputs [N, C] in the examples' order, as the run's `trainer` says how to compute them."""
        return predict_logits(
            self.model,
            examples,
            batch_size=self.spec.trainer.eval_batch_size,
            layout=self.layout,
            precision=self.precision,
            on_progress=on_progress,
        )


def find_intact_result(store: Store, key: str, emit: Emit) -> Bundle | None:
    """Return the published result, every file verified; None if it has to be made, what is damaged being set aside."""
    bundle = store.find_intact(key, lambda text: emit("note", f"{text}; it is made again"))
    if bundle is None:
        store.remove_leftovers(key)
    return bundle


def load_trained_model(
    store: Store, spec_key: str, snapshot: SnapshotRef, checkpoint: CheckpointRef, num_threads: int | None
) -> TrainedModel:
    """Return the checkpoint's model, and have torch compute with `num_threads` CPU threads.

    Raises:
        CheckpointDamagedError, SnapshotDamagedError: the checkpoint, or the snapshot's tokenizer, is missing, damaged,
            or another one than the reference says.
        CorruptError: the RunSpec is; or the checkpoint does not have one output per label name.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    spec = fetch_spec(store, spec_key)
    try:
        folder = store.fetch(checkpoint.key, digest=checkpoint.digest, unread=NOT_OF_THE_MODEL)
    except CorruptError as error:
        raise CheckpointDamagedError(str(error)) from error
    tokenizer = load_tokenizer(fetch_tokenizer(store, snapshot))
    set_up_torch(num_threads)
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention_implementation()
    )
    if model.config.num_labels != (num_outputs := max(1, len(snapshot.label_names))):
        raise CorruptError(
            f"{checkpoint.key} has {model.config.num_labels} outputs, but {snapshot.key} needs "
            f"{num_outputs}: checkpoint and snapshot are not of the same run"
        )
    return TrainedModel(
        spec=spec,
        model=model.to("cuda" if torch.cuda.is_available() else "cpu"),
        tokenizer=tokenizer,
        layout=layout_for(model, "packed", tokenizer, spec.data),
    )


def progress_reporter(emit: Emit, phase: str) -> OnProgress:
    """Return an `on_progress` that emits a "progress" event twice a second at most, and at the end."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _PROGRESS_SECONDS:
            last = now
            emit("progress", {"phase": phase, "done": done, "total": total})

    return report
