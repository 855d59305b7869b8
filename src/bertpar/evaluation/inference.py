"""A model's outputs for many examples. Shapes: N examples, B batch, C outputs (1 for regression)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from bertpar.layout import Layout, logits
from bertpar.spec import ComputePrecision

OnProgress = Callable[[int, int], None]
"""Is told how many examples are done, and how many there are."""


class TokenisedExamples(Protocol):
    """What is predicted: a split of a snapshot, or texts tokenised just now."""

    lengths: npt.NDArray[np.int64]
    """Tokens per example."""

    def __len__(self) -> int: ...

    def example(self, i: int, /) -> Mapping[str, Any]:
        """Return `input_ids` and `token_type_ids` (or None) of example `i`."""
        ...


@torch.inference_mode()
def predict_logits(
    model: torch.nn.Module,
    examples: TokenisedExamples,
    *,
    batch_size: int,
    layout: Layout,
    precision: ComputePrecision,
    on_progress: OnProgress = lambda done, total: None,
) -> npt.NDArray[np.float32]:
    """Return the model's outputs [N, C] in the examples' order, computed with `precision` on the model's device.

    Examples of like length share a batch, the longest first: little is padded, and a lack of memory shows
    at once. The model is in evaluation mode afterwards. `on_progress` gets the examples done and in total
    after each batch.
    """
    model.eval()
    device = next(model.parameters()).device
    order_N = np.argsort(-examples.lengths, kind="stable")
    logits_NC: npt.NDArray[np.float32] | None = None
    for start in range(0, len(order_N), batch_size):
        indices_B = order_N[start : start + batch_size]
        for batch in layout.batches([examples.example(int(i)) for i in indices_B]):
            logits_BC = logits(model, batch.to(device), precision).cpu().numpy()
            if logits_NC is None:
                logits_NC = np.empty((len(order_N), logits_BC.shape[1]), dtype=np.float32)
            logits_NC[indices_B[batch.positions_B]] = logits_BC
        on_progress(min(start + batch_size, len(order_N)), len(order_N))
    assert logits_NC is not None, "nothing to predict"
    return logits_NC
