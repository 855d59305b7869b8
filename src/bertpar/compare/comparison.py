"""The comparison itself: configurations ranked on validation, and their differences on the test set. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bertpar.compare import statistics
from bertpar.compare.configurations import Configuration, check_comparable, group_runs
from bertpar.compare.results import SweepResults
from bertpar.compare.statistics import Hits, PairedDifference, Scores
from bertpar.errors import NotFoundError
from bertpar.metric_names import main_metric

ALPHA = 1 - statistics.CONFIDENCE
"""The level of all comparisons of a sweep together."""

Verdict = Literal["winner", "not separable", "worse", "better"]


@dataclass(frozen=True, kw_only=True)
class MeanSpread:
    """A metric over the seeds of a configuration."""

    mean: float
    spread: float | None
    """Standard deviation over seeds; None for one seed, which has none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration in the comparison."""

    place: int
    """By the mean of the objective on validation, from 1."""
    configuration: Configuration
    objective: MeanSpread
    test: MeanSpread
    lead: PairedDifference | None
    """The winner's test metric minus this one's; None for the winner."""
    p_adjusted: float | None
    """The p-value of the lead after Holm's correction for the number of comparisons."""
    verdict: Verdict
    """Of this configuration against the winner, on the test set."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which configuration won on validation, and what the test set says of its lead."""

    sweep_ids: tuple[str, ...]
    objective: str
    mode: Literal["min", "max"]
    test_metric: str
    num_examples: int
    rows: tuple[Row, ...]
    """Best first; never empty."""
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def winner(self) -> Row:
        return self.rows[0]

    def __str__(self) -> str:
        from bertpar.compare.words import conclusion, limits

        return "\n".join([conclusion(self), *(f"- {note}" for note in limits(self))])

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar compare --json`."""
        return {
            "sweeps": list(self.sweep_ids),
            "objective": self.objective,
            "mode": self.mode,
            "test_metric": self.test_metric,
            "num_test_examples": self.num_examples,
            "method": {
                "interval": "paired percentile bootstrap over test examples, Student's t for seeds",
                "confidence": statistics.CONFIDENCE,
                "num_resamples": statistics.NUM_RESAMPLES,
                "seed": statistics.BOOTSTRAP_SEED,
                "p_value": "McNemar's exact test for one seed each, else the bootstrap's",
                "correction": "Holm",
                "alpha": round(ALPHA, 12),
            },
            "configurations": [_row_as_json(row) for row in self.rows],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }


def compare(sweeps: Sequence[SweepResults]) -> Comparison:
    """Return the comparison of all completed runs of the sweeps.

    Raises:
        NotFoundError: no run has completed.
        NotComparableError: test sets, tasks or objectives differ.
    """
    runs = [run for sweep in sweeps for run in sweep.runs]
    left_out = tuple(name for sweep in sweeps for name in sweep.left_out)
    sweep_ids = tuple(sweep.sweep.sweep_id for sweep in sweeps)
    if not runs:
        states = ", ".join(left_out) or "there are no runs"
        raise NotFoundError(f"no run of {', '.join(sweep_ids)} has completed: there is nothing to compare ({states})")
    check_comparable(runs)
    configurations, notes = group_runs(sweeps)
    first = runs[0]
    metric = f"test/{main_metric(first.task)}"
    ranked = rank_configurations(configurations, first.run.mode)
    snapshots = {run.snapshot_key for run in runs}
    if len(snapshots) > 1:
        notes.append(
            f"the runs were made of {len(snapshots)} snapshots of the data with the same test examples; their "
            "validation examples may differ, and with them what the selection rests on"
        )
    return Comparison(
        sweep_ids=sweep_ids,
        objective=first.run.objective,
        mode=first.run.mode,
        test_metric=metric,
        num_examples=len(first.test_set.row_ids),
        rows=_rows(ranked, metric),
        left_out=left_out,
        notes=tuple(notes),
    )


def rank_configurations(configurations: Sequence[Configuration], mode: Literal["min", "max"]) -> list[Configuration]:
    """Return them best first by the mean of the objective over their seeds; of equal ones the one that came first."""
    sign = 1 if mode == "min" else -1
    return sorted(configurations, key=lambda c: round(sign * _objective(c).mean, 12))


def _rows(ranked: Sequence[Configuration], metric: str) -> tuple[Row, ...]:
    winner, *others = ranked
    leads = [statistics.paired_difference(outputs_of(winner), outputs_of(other)) for other in others]
    adjusted = statistics.holm([lead.p_value for lead in leads])
    first = Row(
        place=1,
        configuration=winner,
        objective=_objective(winner),
        test=_test(winner, metric),
        lead=None,
        p_adjusted=None,
        verdict="winner",
    )
    return (
        first,
        *(
            Row(
                place=place,
                configuration=other,
                objective=_objective(other),
                test=_test(other, metric),
                lead=lead,
                p_adjusted=p,
                verdict=_verdict(lead, p),
            )
            for place, (other, lead, p) in enumerate(zip(others, leads, adjusted, strict=True), start=2)
        ),
    )


def outputs_of(configuration: Configuration) -> Hits | Scores:
    """Return what its runs say of the test examples, as the statistics need it."""
    runs = configuration.runs
    if runs[0].task == "classification":
        return Hits(seeds=configuration.seeds, hits_NS=np.stack([run.hits_N for run in runs], axis=1))
    labels_N = np.array(runs[0].test_set.labels, dtype=np.float64)
    scores_NS = np.stack([run.outputs_N.astype(np.float64) for run in runs], axis=1)
    return Scores(seeds=configuration.seeds, scores_NS=scores_NS, labels_N=labels_N)


def _verdict(lead: PairedDifference, p_adjusted: float) -> Verdict:
    if p_adjusted >= ALPHA or lead.difference == 0:
        return "not separable"
    return "worse" if lead.difference > 0 else "better"


def _objective(configuration: Configuration) -> MeanSpread:
    return _mean_spread([run.objective for run in configuration.runs])


def _test(configuration: Configuration, metric: str) -> MeanSpread:
    return _mean_spread([run.test_metrics[metric] for run in configuration.runs])


def _mean_spread(values: Sequence[float]) -> MeanSpread:
    return MeanSpread(mean=sum(values) / len(values), spread=statistics.spread(values))


def _row_as_json(row: Row) -> dict[str, Any]:
    lead = row.lead
    return {
        "place": row.place,
        "name": row.configuration.name,
        "runs": [run.run.run_id for run in row.configuration.runs],
        "seeds": list(row.configuration.seeds),
        "objective": asdict(row.objective),
        "test": asdict(row.test),
        "lead_of_winner": None
        if lead is None
        else {**asdict(lead), "p_value": lead.p_value, "p_adjusted": row.p_adjusted},
        "verdict": row.verdict,
    }
