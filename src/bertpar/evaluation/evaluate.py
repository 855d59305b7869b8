"""The score of a run's best checkpoint on the test split, published once.

Shapes: N examples, C classes (1 for regression).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertpar.claims import KeptResult
from bertpar.data.snapshot import SplitData, open_split
from bertpar.evaluation.confusion import draw_confusion_matrix
from bertpar.evaluation.load import Emit, find_intact_result, load_trained_model, progress_reporter
from bertpar.evaluation.metrics import (
    CONFIDENCE,
    NUM_RESAMPLES,
    accuracy_interval,
    classification_metrics,
    confusion_counts,
    pearson_interval,
    per_class_table,
    regression_metrics,
)
from bertpar.evaluation.outputs import describe_output
from bertpar.evaluation.stored import CONFUSION_FILE, PREDICTIONS_FILE, REPORT_FILE, evaluation_key
from bertpar.events import EvaluateJob, EvaluateResult
from bertpar.metric_names import main_metric
from bertpar.results import identify_stored, keep_result
from bertpar.spec import ComputePrecision
from bertpar.store import Bundle, Store


def evaluate(job: EvaluateJob, store: Store, emit: Emit) -> EvaluateResult:
    """Score the checkpoint on the test split, and publish the result; one that is there already is taken as it is.

    Raises:
        CheckpointDamagedError, SnapshotDamagedError: checkpoint, or snapshot and tokenizer, are missing or damaged.
    """
    key = evaluation_key(job.run_id, job.checkpoint)
    bundle = find_intact_result(store, key, emit) or _compute(job, store, emit)
    folder = store.fetch(bundle.key, digest=bundle.digest)
    metrics: dict[str, float] = json.loads((folder / REPORT_FILE).read_bytes())["metrics"]
    result = EvaluateResult(key=bundle.key, digest=bundle.digest, metrics=metrics)
    if job.kept_with is not None:
        assert job.code is not None
        identity = identify_stored(store, job.spec_key, job.snapshot, job.code)
        keep_result(store, identity, KeptResult(run_id=job.run_id, training=job.kept_with, evaluation=result))
    return result


def _compute(job: EvaluateJob, store: Store, emit: Emit) -> Bundle:
    split = open_split(store, job.snapshot, "test")
    trained = load_trained_model(store, job.spec_key, job.snapshot, job.checkpoint, job.demand.num_threads)
    logits_NC = trained.predict(split, progress_reporter(emit, "evaluating"))
    labels_N = np.array([split.example(i)["label"] for i in range(len(split))])
    report = _report(job, logits_NC, labels_N, trained.precision)

    def fill(folder: Path) -> None:
        with (folder / PREDICTIONS_FILE).open("w", encoding="utf-8") as file:
            for row in _prediction_rows(split, logits_NC, labels_N, job.snapshot.label_names):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if job.snapshot.task == "classification":
            draw_confusion_matrix(
                np.array(report["confusion_matrix"]),
                job.snapshot.label_names,
                _title(job, report),
                folder / CONFUSION_FILE,
            )
        (folder / REPORT_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")

    return store.publish(
        evaluation_key(job.run_id, job.checkpoint), fill, {"run_id": job.run_id, "checkpoint": job.checkpoint.key}
    )


def _report(
    job: EvaluateJob, logits_NC: npt.NDArray[np.float32], labels_N: npt.NDArray[Any], precision: ComputePrecision
) -> dict[str, Any]:
    task, names = job.snapshot.task, job.snapshot.label_names
    details: dict[str, Any] = {}
    if task == "classification":
        predicted_N = logits_NC.argmax(axis=1)
        metrics = classification_metrics(logits_NC, labels_N)
        low, high = accuracy_interval(int((predicted_N == labels_N).sum()), len(labels_N))
        details["per_class"] = [asdict(row) for row in per_class_table(predicted_N, labels_N, names)]
        details["confusion_matrix"] = confusion_counts(predicted_N, labels_N, len(names)).tolist()
    else:
        metrics = regression_metrics(logits_NC[:, 0], labels_N)
        low, high = pearson_interval(logits_NC[:, 0], labels_N)
    main = main_metric(task)
    metrics |= {f"{main}_low": low, f"{main}_high": high}
    return {
        "run_id": job.run_id,
        "checkpoint": {
            "key": job.checkpoint.key,
            "digest": job.checkpoint.digest,
            "step": job.checkpoint.step,
        },
        "snapshot": {"key": job.snapshot.key, "digest": job.snapshot.digest},
        "task": task,
        "split": "test",
        "num_examples": len(labels_N),
        "precision": precision,
        "metrics": {f"test/{name}": value for name, value in metrics.items()},
        "interval": {
            "metric": f"test/{main}",
            "low": low,
            "high": high,
            "confidence": CONFIDENCE,
            "method": "percentile bootstrap",
            "num_resamples": NUM_RESAMPLES,
        },
        **details,
    }


def _title(job: EvaluateJob, report: dict[str, Any]) -> str:
    metrics = report["metrics"]
    interval = f"{metrics['test/accuracy_low']:.3f} to {metrics['test/accuracy_high']:.3f}"
    return f"{job.run_id}, step {job.checkpoint.step}\naccuracy {metrics['test/accuracy']:.3f} ({interval})"


def _prediction_rows(
    split: SplitData, logits_NC: npt.NDArray[np.float32], labels_N: npt.NDArray[Any], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for i in range(len(split)):
        row: dict[str, Any] = {"row_id": split.row_id(i), "text": split.text(i)}
        if (pair := split.text_pair(i)) is not None:
            row["text_pair"] = pair
        row["label"] = names[labels_N[i]] if names else float(labels_N[i])
        yield row | describe_output(logits_NC[i], names, label_key="predicted")
