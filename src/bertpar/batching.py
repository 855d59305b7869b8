"""Examples to tensors, for training and evaluation alike. Shapes: B examples, L tokens, T tokens of all examples.

A batch of examples of different lengths is laid out in one of two ways: `PaddedBatch` fills rows up to one length, as
every model of transformers takes them; `PackedBatch` puts the tokens one after another, and nothing is computed for
padding but a little in attention (packed_bert.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Examples = Sequence[Mapping[str, Any]]

Moved = TypeVar("Moved", "PaddedBatch", "PackedBatch", "Group")

_TOKEN_MULTIPLE = 32
_LENGTH_MULTIPLE = 16
"""Packs and groups are filled up to these, so that few steps have new shapes: a new shape costs new kernels, and new
memory where what earlier steps have freed does not fit."""
_GROUP_COST = 10000.0
"""What one more group of a pack costs, in scores of attention: so many take as long as its operations to start."""
_BUCKET_COST = 64.0
"""What one more micro-batch costs, in tokens."""


@dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """Examples padded on the right to one length; the fields but `labels_B` are a model's keyword arguments."""

    input_ids: Tensor
    """int64 [B, L]."""
    attention_mask: Tensor
    """int64 [B, L]: 1 for a token, 0 for padding."""
    token_type_ids: Tensor | None
    """int64 [B, L]; only where some example has them: BERT takes none for zeros, DistilBERT accepts none."""
    labels_B: Tensor | None
    """int64 class ids (classification) or float32 (regression); None for examples without labels."""
    positions_B: npt.NDArray[np.int64]
    """Where each row's example was in what the batch was made of."""

    def to(self, device: torch.device) -> PaddedBatch:
        """Return the batch on `device`; the copy may still be under way, in the order of the device's own work."""
        return _moved(self, device)

    def inputs(self) -> dict[str, Tensor]:
        """Return the keyword arguments of a model."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.token_type_ids is None else {**inputs, "token_type_ids": self.token_type_ids}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neighbours in a pack, of like length, that share an attention computation padded to the longest, L."""

    num_tokens: int
    num_examples: int
    length: int
    """L: of its longest example, and a little more."""
    slots: Tensor | None
    """int64 [tokens]: the place of each token among the num_examples * L padded ones; None where nothing is padded."""
    bias: Tensor | None
    """float32 [num_examples, 1, 1, L], to be added to scores: -inf for padding; None where nothing is padded."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Examples one after another, the longest first, without padding between them."""

    input_ids_T: Tensor
    position_ids_T: Tensor
    """Place of each token in its example, from 0."""
    token_type_ids_T: Tensor | None
    starts_B: Tensor
    """int64: the first token of each example."""
    groups: tuple[Group, ...]
    num_fillers: int
    """Tokens at the end that belong to no example: nothing depends on them."""
    labels_B: Tensor | None
    positions_B: npt.NDArray[np.int64]

    def to(self, device: torch.device) -> PackedBatch:
        """As that of a PaddedBatch."""
        moved = _moved(self, device)
        return replace(moved, groups=tuple(_moved(group, device) for group in self.groups))


Batch = PaddedBatch | PackedBatch
"""Some examples as one forward pass takes them, in the order that suits it."""


def pad(examples: Examples, pad_token_id: int, *, length: int | None = None) -> PaddedBatch:
    """Return the examples in their order, padded to `length`, or to the longest of them."""
    assert examples, "a batch needs an example"
    shape = (len(examples), length or max(len(example["input_ids"]) for example in examples))
    input_ids_BL = torch.full(shape, pad_token_id, dtype=torch.int64)
    attention_mask_BL = torch.zeros(shape, dtype=torch.int64)
    has_types = any(example["token_type_ids"] is not None for example in examples)
    token_type_ids_BL = torch.zeros(shape, dtype=torch.int64) if has_types else None
    for row, example in enumerate(examples):
        num_tokens = len(example["input_ids"])
        input_ids_BL[row, :num_tokens] = torch.tensor(example["input_ids"], dtype=torch.int64)
        attention_mask_BL[row, :num_tokens] = 1
        if token_type_ids_BL is not None and example["token_type_ids"] is not None:
            token_type_ids_BL[row, :num_tokens] = torch.tensor(example["token_type_ids"], dtype=torch.int64)
    return PaddedBatch(
        input_ids=input_ids_BL,
        attention_mask=attention_mask_BL,
        token_type_ids=token_type_ids_BL,
        labels_B=_labels(examples),
        positions_B=np.arange(len(examples)),
    )


def pad_in_buckets(examples: Examples, pad_token_id: int) -> list[PaddedBatch]:
    """Return the examples in micro-batches of like length, the longest first, each padded to its longest."""
    order, lengths = _longest_first(examples)
    return [
        replace(pad([examples[i] for i in order[a:b]], pad_token_id), positions_B=order[a:b])
        for a, b in pairwise(cheapest_bounds(lengths, _BUCKET_COST))
    ]


def pack(examples: Examples, pad_token_id: int) -> PackedBatch:
    """Return the examples as one pack, the longest first."""
    assert examples, "a batch needs an example"
    order, lengths = _longest_first(examples)
    examples = [examples[i] for i in order]
    bounds = cheapest_bounds(_filled_up(lengths, _LENGTH_MULTIPLE) ** 2, _GROUP_COST)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    has_types = any(example["token_type_ids"] is not None for example in examples)
    types = [example["token_type_ids"] or [0] * len(example["input_ids"]) for example in examples]
    num_fillers = -int(starts[-1]) % _TOKEN_MULTIPLE
    return PackedBatch(
        input_ids_T=_concatenated([*(example["input_ids"] for example in examples), [pad_token_id] * num_fillers]),
        position_ids_T=_concatenated([*map(np.arange, lengths), [0] * num_fillers]),
        token_type_ids_T=_concatenated([*types, [0] * num_fillers]) if has_types else None,
        starts_B=torch.from_numpy(starts[:-1]),
        groups=tuple(_group(lengths[a:b]) for a, b in pairwise(bounds)),
        num_fillers=num_fillers,
        labels_B=_labels(examples),
        positions_B=order,
    )


def cheapest_bounds(costs_B: npt.NDArray[np.int64], group_cost: float) -> list[int]:
    """Return where to cut examples of descending cost into groups, both ends included, so that all cost least.

    Padded to its first, a group costs its number of examples times the first one's cost, and `group_cost`. The least
    sum is found by dynamic programming over the last cut.
    """
    num_examples = len(costs_B)
    firsts = np.arange(num_examples)
    least = np.zeros(num_examples + 1)
    best_cut = np.zeros(num_examples + 1, dtype=np.int64)
    for end in range(1, num_examples + 1):
        costs = least[:end] + (end - firsts[:end]) * costs_B[:end] + group_cost
        best_cut[end] = costs.argmin()
        least[end] = costs[best_cut[end]]
    bounds = [num_examples]
    while bounds[-1] > 0:
        bounds.append(int(best_cut[bounds[-1]]))
    return bounds[::-1]


def _group(lengths: npt.NDArray[np.int64]) -> Group:
    num_examples, num_tokens = len(lengths), int(lengths.sum())
    length = int(_filled_up(lengths, _LENGTH_MULTIPLE)[0])
    slots = bias = None
    if num_tokens < num_examples * length:
        is_token = np.arange(length) < lengths[:, None]
        slots = torch.from_numpy(np.flatnonzero(is_token))
        bias = torch.from_numpy(np.where(is_token, np.float32(0), -np.float32(np.inf)))[:, None, None, :]
    return Group(num_tokens=num_tokens, num_examples=num_examples, length=length, slots=slots, bias=bias)


def _filled_up(numbers: npt.NDArray[np.int64], multiple: int) -> npt.NDArray[np.int64]:
    return -(-numbers // multiple) * multiple


def _longest_first(examples: Examples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order by descending length, and the lengths in this order."""
    lengths = np.array([len(example["input_ids"]) for example in examples])
    order = np.argsort(-lengths, kind="stable")
    return order, lengths[order]


def _concatenated(parts: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _labels(examples: Examples) -> Tensor | None:
    return torch.tensor([example["label"] for example in examples]) if "label" in examples[0] else None


def _moved(batch: Moved, device: torch.device) -> Moved:
    """Return the dataclass with its tensors on `device`."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Any] = {}
    for field in fields(batch):
        if isinstance(tensor := getattr(batch, field.name), Tensor):
            # only from pinned memory does a copy run beside other work
            pinned = tensor.pin_memory() if device.type == "cuda" else tensor
            moved[field.name] = pinned.to(device, non_blocking=True)
    return replace(batch, **moved)
