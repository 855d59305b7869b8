"""What the runs get wrong: confusions, and the examples with the worst errors. Pure.

Shapes: N test examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertpar.compare import Comparison, Configuration, RunResult

MOST_CLASSES = 10
"""Up to so many classes a confusion matrix is shown whole, of more the confusions that occur most."""

_MOST_CONFUSIONS = 15
_MOST_MATRICES = 6
_MOST_ERRORS = 20
_LONGEST_TEXT = 500


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Labels and predictions of a configuration, the counts summed over its seeds."""

    name: str
    num_seeds: int
    label_names: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    """Count and share of the label's examples; rows are labels, columns predictions. Empty for many classes."""
    most: tuple[tuple[str, str, int, float], ...]
    """Label, other prediction, count and share of the label's examples, the most frequent first."""


@dataclass(frozen=True, kw_only=True)
class WorstError:
    """A test example that the best run got wrong, surely or far."""

    row_id: str
    text: str
    label: str
    predicted: str
    how_bad: str
    """The probability of the predicted class, or the distance from the label."""
    num_wrong: int | None
    """Of all completed runs, how many predict it wrongly; None for a regression."""


def confusions(comparison: Comparison) -> list[Confusion]:
    """Return the confusions of the first configurations, best first; none for a regression."""
    if not comparison.winner.configuration.runs[0].label_names:
        return []
    return [_confusion(row.configuration) for row in comparison.rows[:_MOST_MATRICES]]


def _confusion(configuration: Configuration) -> Confusion:
    names = configuration.runs[0].label_names
    ids = {name: i for i, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), dtype=np.int64)
    for run in configuration.runs:
        labels_N = [ids[str(label)] for label in run.test_set.labels]
        np.add.at(counts_CC, (labels_N, [ids[str(output)] for output in run.outputs_N]), 1)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    wrong = [(int(counts_CC[i, j]), i, j) for i, j in np.ndindex(counts_CC.shape) if i != j and counts_CC[i, j]]
    cells = range(len(names)) if len(names) <= MOST_CLASSES else ()
    return Confusion(
        name=configuration.name,
        num_seeds=len(configuration.runs),
        label_names=names,
        rows=tuple(tuple((int(counts_CC[i, j]), float(shares_CC[i, j])) for j in cells) for i in cells),
        most=tuple(
            (names[i], names[j], count, float(shares_CC[i, j]))
            for count, i, j in sorted(wrong, key=lambda found: (-found[0], found[1:]))[:_MOST_CONFUSIONS]
        ),
    )


def best_run(comparison: Comparison) -> RunResult:
    """Return the run of the winner that is best on validation."""
    sign = 1 if comparison.mode == "min" else -1
    return min(comparison.winner.configuration.runs, key=lambda run: (sign * run.objective, run.seed))


def worst_errors(run: RunResult, all_runs: Sequence[RunResult]) -> list[WorstError]:
    """Return what `run` got wrong with the highest confidence, or, of a regression, by most."""
    labels = run.test_set.labels
    if run.label_names:
        wrong = np.flatnonzero(~run.hits_N)
        chosen = wrong[np.argsort(-run.confidences_N[wrong], kind="stable")][:_MOST_ERRORS]
        how_bad = [f"{run.confidences_N[i]:.3f}" for i in chosen]
        counts_N = np.sum([~other.hits_N for other in all_runs], axis=0)
        return [
            _error(run, i, str(run.outputs_N[i]), bad, int(counts_N[i])) for i, bad in zip(chosen, how_bad, strict=True)
        ]
    distances_N = np.abs(run.outputs_N - np.array(labels, dtype=np.float64))
    chosen = np.argsort(-distances_N, kind="stable")[:_MOST_ERRORS]
    return [_error(run, i, f"{run.outputs_N[i]:.4g}", f"{distances_N[i]:.4g}", None) for i in chosen]


def _error(run: RunResult, i: int, predicted: str, how_bad: str, num_wrong: int | None) -> WorstError:
    text, label = run.test_set.texts[i], run.test_set.labels[i]
    return WorstError(
        row_id=str(run.test_set.row_ids[i]),
        text=text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…",
        label=label if isinstance(label, str) else f"{label:.4g}",
        predicted=predicted,
        how_bad=how_bad,
        num_wrong=num_wrong,
    )
