"""What a report is made of: everything is known, nothing is drawn yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bertpar.compare import Comparison, RunResult
from bertpar.observe import SweepView
from bertpar.why import RunRecord

Curve = tuple[tuple[int, float], ...]
"""A metric by optimizer step."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A run's metrics on the way."""

    run_id: str
    validation: Curve
    """Of the objective."""
    train_loss: Curve


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything that the page of a sweep shows."""

    view: SweepView
    status: str
    """Of the sweep: `running`, `completed`, `failed` or `cancelled`."""
    made_at: datetime
    comparison: Comparison | None
    """None where nothing can be compared; `no_comparison` then says why."""
    no_comparison: str | None
    results: tuple[RunResult, ...]
    """Of the completed runs, in their order."""
    curves: tuple[Curves, ...]
    records: tuple[RunRecord, ...]
    """What happened to the runs, in their order."""
    notes: Sequence[str] = ()
    """What is missing, and why."""

    @property
    def objective(self) -> str:
        return self.view.runs[0].state.run.objective if self.view.runs else "objective"
