"""What one run came to, as store and MLflow have it: everything that must not depend on interruptions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bertpar.catalogue import collected_steps
from bertpar.checkpoints import find_checkpoints
from bertpar.evaluation.stored import PREDICTIONS_FILE, REPORT_FILE
from bertpar.mlflow_jobs import IDENTITY_TAG
from bertpar.results import lineage
from bertpar.spec import digest_json
from bertpar.store import Store, sha256_of
from bertpar.tracking import EXAMPLES_PER_SECOND
from bertpar.tracking.connection import mlflow_client, tag_filter
from bertpar.tracking.rows import CONTRADICTION_TAG
from bertpar.verify.weights import Weights, read_weights


@dataclass(frozen=True, kw_only=True, order=True)
class Row:
    """One value of one metric, with the bits that MLflow returns. When it was logged is left out."""

    step: int
    key: str
    bits: str
    """The value as `float.hex` writes it."""

    @property
    def value(self) -> float:
        return float.fromhex(self.bits)


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """One run's results. Two outcomes with the same digest are the same results, bit for bit."""

    run_id: str
    """`SWEEP/INDEX`"""
    statuses: tuple[str, ...]
    """The status of every MLflow run that carries the run's identity: of an honest run, exactly one."""
    rows: tuple[Row, ...]
    """Every metric row, repeated ones included, by step and key; measured speed is left out."""
    contradiction: str | None = None
    """What a run says itself that it logged twice with different values."""
    weights: dict[int, Weights]
    """Of every checkpoint that the store has, by step."""
    torn_steps: tuple[int, ...] = ()
    """Steps of which two attempts left checkpoints with different weights."""
    best_step: int | None
    """The checkpoint that was scored on the test split; None before that."""
    num_evaluations: int
    test_metrics: dict[str, float]
    predictions: str | None
    """The sha256 of the file of test predictions; None where there is none."""
    configuration: dict[str, str] = field(default_factory=dict)
    """The configuration as MLflow shows it: no result, but the first thing to look at where results differ."""
    collected_steps: tuple[int, ...] = ()
    """Steps whose checkpoints `bertpar gc` has deleted: their weights cannot be compared any more."""

    @property
    def last_step(self) -> int | None:
        """The step of the last checkpoint, of those that are there and those that gc has deleted."""
        return max((*self.weights, *self.collected_steps), default=None)

    @property
    def digest(self) -> str:
        """The sha256 over everything that was computed: weights, metric rows, choice, scores, predictions."""
        return digest_json(
            {
                "weights": self.weights_digest,
                "rows": [[row.step, row.key, row.bits] for row in self.rows],
                "best_step": self.best_step,
                "test_metrics": {key: value.hex() for key, value in self.test_metrics.items()},
                "predictions": self.predictions,
                "statuses": self.statuses,
            }
        )

    @property
    def weights_digest(self) -> str:
        """The sha256 over the tensors of the best and of the last checkpoint."""
        steps = {"best": self.best_step, "last": self.last_step}
        return digest_json({k: self.weights[s].digest for k, s in steps.items() if s is not None and s in self.weights})


def read_outcome(store: Store, tracking_uri: str, run_id: str, mlflow_runs: Sequence[Any]) -> RunOutcome:
    """Read what `run_id` came to. `mlflow_runs` are those of its identity, as find_mlflow_runs returns them.

    Raises:
        CorruptError: a file of a checkpoint or of the evaluation differs from its manifest.
        TrackingError: MLflow cannot be reached.
    """
    with mlflow_client(tracking_uri) as client:
        rows = tuple(sorted(row for run in mlflow_runs for row in _read_rows(client, run)))
    runs = lineage(store, run_id)
    weights, torn_steps = _read_checkpoints(store, runs)
    evaluations = next((found for run in runs if (found := store.list(f"runs/{run}/evaluation"))), [])
    evaluated = _read_evaluation(store, evaluations[-1]) if evaluations else _Evaluation()
    return RunOutcome(
        run_id=run_id,
        statuses=tuple(run.info.status for run in mlflow_runs),
        rows=rows,
        contradiction=next((c for run in mlflow_runs if (c := run.data.tags.get(CONTRADICTION_TAG))), None),
        weights=weights,
        torn_steps=torn_steps,
        best_step=evaluated.best_step,
        num_evaluations=len(evaluations),
        test_metrics=evaluated.metrics,
        predictions=evaluated.predictions,
        configuration={key: value for run in mlflow_runs for key, value in run.data.params.items()},
        collected_steps=tuple(sorted({step for run in runs for step in collected_steps(store, run)} - weights.keys())),
    )


def find_mlflow_runs(tracking_uri: str, identity: str) -> dict[str, list[Any]]:
    """Return the active MLflow runs of a run, or of a sweep and its runs, by identity, the earliest first.

    They are found by the one tag without which no run is made: so is a second one that a lost answer left.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    by_identity: dict[str, list[Any]] = defaultdict(list)
    for run in sorted(_search(tracking_uri, f"{identity}%"), key=lambda run: (run.info.start_time, run.info.run_id)):
        own = run.data.tags[IDENTITY_TAG]
        if own == identity or own.startswith(f"{identity}/"):  # LIKE takes `_` for any character
            by_identity[own].append(run)
    return dict(by_identity)


def list_mlflow_sweeps(tracking_uri: str) -> list[str]:
    """Return the ids of all sweeps that MLflow has, the newest first.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    newest_first = sorted(_search(tracking_uri, "%"), key=lambda run: run.info.start_time, reverse=True)
    return list(dict.fromkeys(run.data.tags[IDENTITY_TAG].partition("/")[0] for run in newest_first))


def _search(tracking_uri: str, pattern: str) -> list[Any]:
    runs: list[Any] = []
    page = None
    with mlflow_client(tracking_uri) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        while True:
            found = client.search_runs(experiments, tag_filter(IDENTITY_TAG, "LIKE", pattern), page_token=page)
            runs += list(found)
            if not (page := found.token):
                return runs


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    best_step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: str | None = None


def _read_rows(client: Any, run: Any) -> list[Row]:
    return [
        Row(step=metric.step, key=key, bits=float(metric.value).hex())
        for key in run.data.metrics.keys() - {EXAMPLES_PER_SECOND}
        for metric in client.get_metric_history(run.info.run_id, key)
    ]


def _read_checkpoints(store: Store, runs: Sequence[str]) -> tuple[dict[int, Weights], tuple[int, ...]]:
    weights: dict[int, Weights] = {}
    torn_steps: set[int] = set()
    for checkpoint in (checkpoint for run in runs for checkpoint in find_checkpoints(store, run)):
        found = read_weights(store.fetch(checkpoint.key, digest=checkpoint.digest))
        if weights.setdefault(checkpoint.step, found) != found:
            torn_steps.add(checkpoint.step)
    return dict(sorted(weights.items())), tuple(sorted(torn_steps))


def _read_evaluation(store: Store, key: str) -> _Evaluation:
    folder = store.fetch(key)
    report = json.loads((folder / REPORT_FILE).read_bytes())
    return _Evaluation(
        best_step=report["checkpoint"]["step"],
        metrics=report["metrics"],
        predictions=sha256_of(folder / PREDICTIONS_FILE),
    )
