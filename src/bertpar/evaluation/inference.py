"""A model's outputs for many examples. Shapes: N examples, B batch, C outputs (1 for regression)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from bertpar.batching import collate
from bertpar.spec import Precision, Task


class TokenisedExamples(Protocol):
    """What is predicted: a split of a snapshot, or texts tokenised just now."""

    lengths: npt.NDArray[np.int64]
    """Tokens per example."""

    def __len__(self) -> int: ...

    def example(self, i: int, /) -> Mapping[str, Any]:
        """Return `input_ids` and `token_type_ids` (or None) of example `i`."""
        ...


def predict_logits(
    model: torch.nn.Module,
    examples: TokenisedExamples,
    *,
    batch_size: int,
    pad_token_id: int,
    task: Task,
    precision: Precision = "fp32",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float32]:
    """Return the model's outputs [N, C] in the examples' order, computed on the device where the model is.

    Examples of like length share a batch, the longest first: little is padded, and a lack of memory shows
    at once. The model is in evaluation mode afterwards. `on_progress` gets the examples done and in total
    after each batch.
    """
    model.eval()
    device = next(model.parameters()).device
    order_N = np.argsort(-examples.lengths, kind="stable")
    batches: list[npt.NDArray[np.float32]] = []
    num_done = 0
    for start in range(0, len(order_N), batch_size):
        indices_B = order_N[start : start + batch_size]
        batch = collate([examples.example(int(i)) for i in indices_B], pad_token_id, task)
        batch.pop("labels", None)  # no loss is wanted
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            logits_BC = model(**inputs).logits
        batches.append(logits_BC.float().cpu().numpy())
        num_done += len(indices_B)
        on_progress(num_done, len(order_N))
    logits_NC = np.empty((len(order_N), batches[0].shape[1]), dtype=np.float32)
    logits_NC[order_N] = np.concatenate(batches)
    return logits_NC
