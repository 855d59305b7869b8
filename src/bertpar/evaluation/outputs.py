"""A model's output in the user's words. Shapes: C outputs (1 for regression)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertpar.evaluation.metrics import softmax


def describe_output(
    logits_C: npt.NDArray[np.float32], label_names: Sequence[str], *, label_key: str = "label"
) -> dict[str, Any]:
    """Return the likeliest label under `label_key` and `probabilities` by name; without names, `score`."""
    if not label_names:
        return {"score": float(logits_C[0])}
    probabilities_C = softmax(logits_C[None])[0]
    return {
        label_key: label_names[int(logits_C.argmax())],
        "probabilities": dict(zip(label_names, probabilities_C.tolist(), strict=True)),
    }
