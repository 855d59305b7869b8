"""Evaluations as the store has them, with predictions that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bertpar.codec import publish_spec
from bertpar.evaluation.stored import PREDICTIONS_FILE, REPORT_FILE, evaluation_key
from bertpar.events import CheckpointRef
from bertpar.metric_names import main_metric
from bertpar.spec import (
    CheckpointSpec,
    DataSpec,
    ModelSpec,
    RunSpec,
    Task,
    TrackingSpec,
)
from bertpar.states import RunState, SweepOptions, SweepStatus
from bertpar.store import Store
from tests.specs import OPTIM, OPTIONS, TRAINER, run_ref

SPEC = RunSpec(
    seed=0,
    model=ModelSpec(name="tiny", source="random", path="tiny"),
    data=DataSpec(
        name="made",
        source="files",
        task="classification",
        text_column="text",
        label_column="label",
        validation_fraction=0.1,
        test_fraction=0.1,
        split_seed=0,
        max_length=16,
    ),
    optim=OPTIM,
    trainer=TRAINER,
    checkpoint=CheckpointSpec(every_n_steps=None, keep=1, monitor="val/accuracy", mode="max"),
    config={"lr": 0.1, "seed": 0, "model": {"name": "tiny"}},
)


def spec(lr: float, seed: int) -> RunSpec:
    return replace(SPEC, seed=seed, optim=replace(SPEC.optim, lr=lr), config={**SPEC.config, "lr": lr, "seed": seed})


def best_checkpoint(run_id: str) -> CheckpointRef:
    return CheckpointRef(
        key=f"runs/{run_id}/checkpoints/attempt-1/step-00000010",
        digest=f"{run_id:0>64}".replace("/", "-"),
        step=10,
        attempt=1,
        num_bytes=1,
        metrics={},
    )


def publish_evaluation(
    store: Store,
    run_id: str,
    outputs: Sequence[bool] | Sequence[float],
    *,
    labels: Sequence[float] | None = None,
    first_row: int = 0,
    checkpoint: CheckpointRef | None = None,
) -> dict[str, float]:
    """Publish what a run says of its test examples, and return its metrics.

    `outputs` say whether each example is got right; with `labels` they are the scores of a regression.
    """
    task: Task = "classification" if labels is None else "regression"
    rows = [{"row_id": f"{first_row + i:05}", "text": f"text {first_row + i}"} for i in range(len(outputs))]
    for i, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        row |= _classified(i, bool(output)) if labels is None else {"label": labels[i], "score": float(output)}
    value = float(np.mean(outputs)) if labels is None else _correlation(outputs, labels)
    metrics = {f"test/{main_metric(task)}": value}
    report = {"task": task, "metrics": metrics, "snapshot": {"key": "snapshots/a", "digest": "d"}}

    def fill(folder: Path) -> None:
        (folder / PREDICTIONS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / REPORT_FILE).write_text(json.dumps(report), encoding="utf-8")

    store.publish(evaluation_key(run_id, checkpoint or best_checkpoint(run_id)), fill)
    return metrics


def _classified(i: int, right: bool) -> dict[str, Any]:
    label = "yes" if i % 2 else "no"
    predicted = label if right else {"yes": "no", "no": "yes"}[label]
    return {"label": label, "predicted": predicted, "probabilities": {"no": 0.4, "yes": 0.4, predicted: 0.6}}


def _correlation(scores: Sequence[float], labels: Sequence[float]) -> float:
    return float(np.corrcoef(scores, labels)[0, 1]) if np.std(scores) else 0.0


def sweep_options(store: Store) -> SweepOptions:
    tracking = TrackingSpec(uri="sqlite:////nowhere/mlflow.db", experiment="test")
    return replace(OPTIONS, store_root=store.root, tracking=tracking)


def stored_run(
    store: Store,
    run_id: str,
    outputs: Sequence[bool] | Sequence[float],
    *,
    lr: float,
    seed: int = 1,
    validation: float = 0.5,
    mode: Any = "max",
    **evaluation: Any,
) -> RunState:
    """Return a completed run whose evaluation is in the store."""
    metrics = publish_evaluation(store, run_id, outputs, **evaluation)
    ref = run_ref(
        run_id,
        overrides=(f"lr={lr}", f"seed={seed}"),
        swept={"lr": str(lr), "seed": str(seed)},
        spec_key=publish_spec(store, spec(lr, seed)),
        mode=mode,
    )
    return RunState(
        run=ref,
        status="completed",
        mlflow_run_id=f"mlflow-{ref.index}",
        metrics={"val/accuracy": validation, **metrics},
        best=best_checkpoint(run_id),
    )


def sweep_of(store: Store, *runs: RunState) -> SweepStatus:
    sweep_id = runs[0].run.run_id.rpartition("/")[0]
    return SweepStatus(
        sweep_id=sweep_id, name="test", status="completed", runs=runs, mlflow=None, options=sweep_options(store)
    )
