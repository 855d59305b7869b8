"""Examples to tensors, for training and evaluation alike. Shapes: B batch, L tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bertpar.spec import Task


def collate(examples: Sequence[Mapping[str, Any]], pad_token_id: int, task: Task) -> dict[str, Tensor]:
    """Return the examples as a model's keyword arguments, padded on the right to the longest of them.

    `input_ids`, `attention_mask` (1 for a token, 0 for padding) and `token_type_ids` are int64 [B, L];
    `labels` is [B], int64 class ids (classification) or float32 (regression).

    `token_type_ids` is there only if some example has them: BERT takes none for zeros, and its relatives
    that know no token types (DistilBERT) accept none. `labels` is there only if the examples have a `label`.
    """
    assert examples, "a batch needs an example"
    longest = max(len(example["input_ids"]) for example in examples)
    shape = (len(examples), longest)
    input_ids_BL = torch.full(shape, pad_token_id, dtype=torch.int64)
    attention_mask_BL = torch.zeros(shape, dtype=torch.int64)
    token_type_ids_BL = torch.zeros(shape, dtype=torch.int64)
    for row, example in enumerate(examples):
        num_tokens = len(example["input_ids"])
        input_ids_BL[row, :num_tokens] = torch.tensor(example["input_ids"], dtype=torch.int64)
        attention_mask_BL[row, :num_tokens] = 1
        if example["token_type_ids"] is not None:
            token_type_ids_BL[row, :num_tokens] = torch.tensor(example["token_type_ids"], dtype=torch.int64)
    batch = {"input_ids": input_ids_BL, "attention_mask": attention_mask_BL}
    if any(example["token_type_ids"] is not None for example in examples):
        batch["token_type_ids"] = token_type_ids_BL
    if "label" in examples[0]:
        dtype = torch.int64 if task == "classification" else torch.float32
        batch["labels"] = torch.tensor([example["label"] for example in examples], dtype=dtype)
    return batch
