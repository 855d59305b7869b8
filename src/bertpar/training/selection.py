"""Which checkpoints are the best, which are kept, and when to stop early. Pure functions of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bertpar.events import CheckpointRef
from bertpar.spec import CheckpointSpec, TrainerSpec

_NUM_LAST = 2
"""Newest checkpoints that are kept in any case: if the last is damaged, the one before serves."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The metrics measured after optimizer step `step`."""

    step: int
    metrics: dict[str, float]


def best_validation(validations: Sequence[Validation], spec: CheckpointSpec) -> Validation:
    """Return the best by the monitored metric; of equals the earliest. NaN loses to every number."""
    return min(validations, key=lambda v: (_badness(v.metrics, spec), v.step))


def checkpoints_to_prune(checkpoints: Sequence[CheckpointRef], spec: CheckpointSpec) -> list[CheckpointRef]:
    """Return those that are neither among the `keep` best validated ones nor among the newest.

    Nor the best of what was there before the newest: whoever goes on from an older one finds the best of its time.
    """
    by_step = sorted(checkpoints, key=lambda c: c.step)
    kept = {c.key for c in by_step[-_NUM_LAST:]}
    for num_newer in range(_NUM_LAST):
        validated = [c for c in by_step[: len(by_step) - num_newer] if spec.monitor in c.metrics]
        validated.sort(key=lambda c: (_badness(c.metrics, spec), c.step))
        kept |= {c.key for c in validated[: spec.keep]}
    return [c for c in checkpoints if c.key not in kept]


def should_stop_early(validations: Sequence[Validation], trainer: TrainerSpec, spec: CheckpointSpec) -> bool:
    """Say whether the newest `patience` validations all failed to improve on the best before them by min_delta."""
    patience = trainer.early_stopping_patience
    if patience is None:
        return False
    best, num_without = math.inf, 0
    for validation in validations:
        badness = _badness(validation.metrics, spec)
        improved = badness < best - trainer.early_stopping_min_delta or (best == math.inf and badness < best)
        best, num_without = (badness, 0) if improved else (best, num_without + 1)
    return num_without >= patience


def _badness(metrics: dict[str, float], spec: CheckpointSpec) -> float:
    value = metrics[spec.monitor]
    if math.isnan(value):
        return math.inf
    return value if spec.mode == "min" else -value
