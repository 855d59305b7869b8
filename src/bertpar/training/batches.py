"""The loaders that Lightning sees: planned training steps, leg by leg, and validation batches in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bertpar.batching import Batch
from bertpar.data.snapshot import SplitData
from bertpar.layout import Layout
from bertpar.training.plan import WHOLE, BatchPlan, Share


class PlannedSteps:
    """Yields the micro-batches of one optimizer step, or of a share of it, after another, until a validation is due.

    A *leg* is what lies between two validations. Lightning takes each for an epoch, and validates after it.
    It has no length: legs differ, the first after a resumption in particular.
    """

    def __init__(
        self,
        data: SplitData,
        plan: BatchPlan,
        leg_ends: Sequence[int],
        done: int,
        layout: Layout,
        share: Share = WHOLE,
    ) -> None:
        self._data = data
        self._plan = plan
        self._share = share
        self._leg_ends = frozenset(leg_ends)
        self._done = done
        self._layout = layout

    def __iter__(self) -> Iterator[list[Batch]]:
        while self._done < self._plan.total_steps:
            self._done += 1
            step = self._done
            yield [
                batch
                for indices in self._plan.micro_batches(step, self._share)
                for batch in self._layout.batches([self._data.example(int(i)) for i in indices])
            ]
            if step in self._leg_ends:
                return


class EvaluationBatches:
    """Yields every example once, the short ones first, so that little is padded."""

    def __init__(self, data: SplitData, batch_size: int, layout: Layout) -> None:
        self._data = data
        order = np.argsort(data.lengths, kind="stable")
        self._parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self._layout = layout

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[list[Batch]]:
        for indices in self._parts:
            yield self._layout.batches([self._data.example(int(i)) for i in indices])
