"""How examples become batches, as `trainer.padding` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertpar.batching import Batch, Examples, PackedBatch, pack, pad, pad_in_buckets
from bertpar.packed_bert import can_pack, packed_logits
from bertpar.spec import ComputePrecision, DataSpec, Padding
from bertpar.torch_setup import autocast


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Turns examples that belong together into one or more forward passes."""

    padding: Padding
    pad_token_id: int
    max_length: int
    """Tokens of an example at most: what padding=max fills up to."""

    def batches(self, examples: Examples) -> list[Batch]:
        """Return the examples, each in one of the batches: in one batch, but for padding=bucket."""
        if self.padding == "packed":
            return [pack(examples, self.pad_token_id)]
        if self.padding == "bucket":
            return list(pad_in_buckets(examples, self.pad_token_id))
        return [pad(examples, self.pad_token_id, length=self.max_length if self.padding == "max" else None)]


def layout_for(model: PreTrainedModel, padding: Padding, tokenizer: PreTrainedTokenizerBase, data: DataSpec) -> Layout:
    """Return the layout; micro-batches of like length where the model cannot compute packed ones.

    Where the tokenizer has no token for padding any other does: what it gives is masked.
    """
    if padding == "packed" and not can_pack(model):
        padding = "bucket"
    return Layout(padding=padding, pad_token_id=tokenizer.pad_token_id or 0, max_length=data.max_length)


def logits(model: Any, batch: Batch, precision: ComputePrecision) -> Tensor:
    """Return the model's outputs [B, C] in the batch's order, computed with `precision`; not in bf16 themselves."""
    # autocast here, not through Lightning's precision: its plugin refuses to clip under a fused optimizer
    with autocast(model.device, precision):
        outputs: Tensor = (
            packed_logits(model, batch) if isinstance(batch, PackedBatch) else model(**batch.inputs()).logits
        )
        return outputs.float() if precision == "bf16" else outputs
