"""What one run came to, as store and MLflow have it: everything that must not depend on interruptions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bertpar.checkpoints import find_checkpoints
from bertpar.events import IDENTITY_TAG
from bertpar.spec import digest_json
from bertpar.store import Store, sha256_of
from bertpar.tracking import EXAMPLES_PER_SECOND
from bertpar.tracking.connection import mlflow_client
from bertpar.tracking.rows import CONTRADICTION_TAG
from bertpar.verify.weights import Weights, read_weights

_REPORT_FILE = "report.json"
_PREDICTIONS_FILE = "predictions.jsonl"


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

    @property
    def last_step(self) -> int | None:
        return max(self.weights, default=None)

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


def read_outcome(store: Store, tracking_uri: str, run_id: str, mlflow_runs: Sequence[Any] | None = None) -> RunOutcome:
    """Read what `run_id` came to. `mlflow_runs` are those of its identity, where the caller has them already.

    Raises:
        CorruptError: a file of a checkpoint or of the evaluation differs from its manifest.
        TrackingError: MLflow cannot be reached.
    """
    with mlflow_client(tracking_uri) as client:
        found = find_mlflow_runs(client, IDENTITY_TAG, run_id) if mlflow_runs is None else list(mlflow_runs)
        rows = tuple(sorted(row for run in found for row in _read_rows(client, run)))
    weights, torn_steps = _read_checkpoints(store, run_id)
    evaluations = store.list(f"runs/{run_id}/evaluation")
    evaluated = _read_evaluation(store, evaluations[-1]) if evaluations else _Evaluation()
    return RunOutcome(
        run_id=run_id,
        statuses=tuple(run.info.status for run in found),
        rows=rows,
        contradiction=next((c for run in found if (c := run.data.tags.get(CONTRADICTION_TAG))), None),
        weights=weights,
        torn_steps=torn_steps,
        best_step=evaluated.best_step,
        num_evaluations=len(evaluations),
        test_metrics=evaluated.metrics,
        predictions=evaluated.predictions,
        configuration=dict(found[0].data.params) if found else {},
    )


def find_mlflow_runs(client: Any, tag: str, value: str) -> list[Any]:
    """Return the active runs of all experiments whose `tag` has this value, the earliest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = []
    page = None
    while True:
        found = client.search_runs(experiments, f"tags.`{tag}` = '{value}'", page_token=page)
        runs += list(found)
        if not (page := found.token):
            return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


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


def _read_checkpoints(store: Store, run_id: str) -> tuple[dict[int, Weights], tuple[int, ...]]:
    weights: dict[int, Weights] = {}
    torn_steps: set[int] = set()
    for checkpoint in find_checkpoints(store, run_id):
        found = read_weights(store.fetch(checkpoint.key, digest=checkpoint.digest))
        if weights.setdefault(checkpoint.step, found) != found:
            torn_steps.add(checkpoint.step)
    return dict(sorted(weights.items())), tuple(sorted(torn_steps))


def _read_evaluation(store: Store, key: str) -> _Evaluation:
    folder = store.fetch(key)
    report = json.loads((folder / _REPORT_FILE).read_bytes())
    return _Evaluation(
        best_step=report["checkpoint"]["step"],
        metrics=report["metrics"],
        predictions=sha256_of(folder / _PREDICTIONS_FILE),
    )
