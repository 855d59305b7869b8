"""What the runs of a sweep came to, read back from the store: scores, and predictions on the test set, by example.

Shapes: N test examples.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bertpar.codec import fetch_spec
from bertpar.errors import CorruptError
from bertpar.evaluation.stored import PREDICTIONS_FILE, REPORT_FILE, evaluation_key
from bertpar.spec import RunSpec, Task, digest_json, flatten
from bertpar.states import RunRef, RunState, SweepStatus
from bertpar.store import Bundle, Store


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """The examples that were scored, sorted by their ids."""

    __test__ = False  # pytest takes the name for a test's

    row_ids: tuple[str, ...]
    texts: tuple[str, ...]
    """Both texts of a pair, one a line."""
    labels: tuple[str | float, ...]
    """Class names, or numbers for a regression."""

    @cached_property
    def digest(self) -> str:
        return digest_json([self.row_ids, self.texts, self.labels])


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A completed run: its configuration, scores and test predictions, these in the order of `test_set`."""

    run: RunRef
    sweep_id: str
    mlflow_run_id: str | None
    code_digest: str
    seed: int
    configuration: dict[str, Any]
    """The specification, flat, but for the seed: equal for runs of one configuration."""
    config: dict[str, Any]
    """The Hydra configuration as the user wrote it, for names."""
    task: Task
    objective: float
    """The validation metric of the best checkpoint that `run.objective` names."""
    test_metrics: dict[str, float]
    snapshot_key: str
    test_set: TestSet
    label_names: tuple[str, ...]
    """Classes in the order of the model's outputs; empty for a regression."""
    outputs_N: npt.NDArray[Any]
    """Predicted class names, or scores (float64) for a regression."""
    confidences_N: npt.NDArray[np.float64]
    """The probability of the predicted class; empty for a regression."""

    @property
    def name(self) -> str:
        return f"{self.run.run_id} (seed {self.seed})"

    @cached_property
    def hits_N(self) -> npt.NDArray[np.bool_]:
        """Whether each example's class was predicted."""
        return np.array([a == b for a, b in zip(self.outputs_N, self.test_set.labels, strict=True)], dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """What a sweep has to be compared."""

    sweep: SweepStatus
    runs: tuple[RunResult, ...]
    left_out: tuple[str, ...]
    """The runs that did not complete, each with its status."""


def read_sweep_results(sweep: SweepStatus, store: Store) -> SweepResults:
    """Return the results of every completed run of the sweep.

    Raises:
        CorruptError: an evaluation is missing or damaged; the message says where an intact copy may be.
        StoreError: the store cannot be read.
    """
    known: dict[str, TestSet] = {}
    completed = [state for state in sweep.runs if state.status == "completed"]
    return SweepResults(
        sweep=sweep,
        runs=tuple(_read_run(state, sweep, store, known) for state in completed),
        left_out=tuple(f"{s.run.run_id} ({s.status})" for s in sweep.runs if s.status != "completed"),
    )


def _read_run(state: RunState, sweep: SweepStatus, store: Store, known: dict[str, TestSet]) -> RunResult:
    report, rows = _read_evaluation(state, store)
    spec = fetch_spec(store, state.run.spec_key)
    test_set = TestSet(
        row_ids=tuple(row["row_id"] for row in rows),
        texts=tuple("\n".join(row[key] for key in ("text", "text_pair") if key in row) for row in rows),
        labels=tuple(row["label"] for row in rows),
    )
    classifies = report["task"] == "classification"
    return RunResult(
        run=state.run,
        sweep_id=sweep.sweep_id,
        mlflow_run_id=state.mlflow_run_id,
        code_digest=sweep.options.code.digest,
        seed=spec.seed,
        configuration=configuration_of(spec),
        config=spec.config,
        task=report["task"],
        objective=state.metrics[state.run.objective],
        test_metrics=report["metrics"],
        snapshot_key=report["snapshot"]["key"],
        test_set=known.setdefault(test_set.digest, test_set),  # its texts are held once
        label_names=tuple(rows[0]["probabilities"]) if classifies else (),
        outputs_N=np.array([row["predicted" if classifies else "score"] for row in rows]),
        confidences_N=np.array([row["probabilities"][row["predicted"]] for row in rows] if classifies else []),
    )


def configuration_of(spec: RunSpec) -> dict[str, Any]:
    """Return what a specification says apart from the seed, flat."""
    return flatten({key: value for key, value in asdict(spec).items() if key not in ("config", "seed", "version")})


def find_evaluation(store: Store, state: RunState) -> Bundle | None:
    """Return the evaluation of a completed run, its own or the one that it reuses; None if there is none."""
    assert state.best is not None
    return store.find(state.evaluation_key or evaluation_key(state.run.run_id, state.best))


def _read_evaluation(state: RunState, store: Store) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the report and the rows of predictions, sorted by id."""
    assert state.best is not None
    bundle = find_evaluation(store, state)
    if bundle is None:
        store.check_there()
        raise CorruptError(
            f"{state.run.run_id} has completed, but store {store.root} has no evaluation of its checkpoint of step "
            f"{state.best.step}. {_remedy(state)}"
        )
    try:
        folder = store.fetch(bundle.key, digest=bundle.digest)
    except CorruptError as error:
        raise CorruptError(f"{error}. {_remedy(state)}") from error
    lines = (folder / PREDICTIONS_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = sorted((json.loads(line) for line in lines), key=lambda row: str(row["row_id"]))
    return json.loads((folder / REPORT_FILE).read_bytes()), rows


def _remedy(state: RunState) -> str:
    run = f"run {state.mlflow_run_id}" if state.mlflow_run_id else f"the run of {state.run.run_id}"
    return f"The same files are in MLflow, as artifacts of {run} under evaluation/: copy them back from there"
