"""A task, a checkpoint of it and what is asked of the two, for tests of evaluation and prediction."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient

from bertpar.checkpoints import STATE_FILE, write_rows
from bertpar.codec import publish_spec
from bertpar.data.snapshot import make_snapshot
from bertpar.evaluation.predict import predict
from bertpar.events import CheckpointRef, EvaluateJob, EvaluateResult, PredictJob, SnapshotRef
from bertpar.mlflow_jobs import CloseRunJob, EvaluationRecord, OpenRunJob
from bertpar.models import load_classifier, resolve_model
from bertpar.paths import Home
from bertpar.spec import DataSpec, RunSpec, Task, TrackingSpec
from bertpar.store import Store

WORDS = [
    "the",
    "film",
    "was",
    "good",
    "bad",
    "great",
    "awful",
    "boring",
    "funny",
    "and",
    "not",
    "very",
    "plot",
    "actor",
    "one",
]


@dataclass
class Case:
    """One task's store, snapshot and checkpoint."""

    store: Store
    home: Home
    spec_key: str
    snapshot: SnapshotRef
    checkpoint: CheckpointRef

    def evaluate_job(self, name: str, **changes: Any) -> EvaluateJob:
        job = EvaluateJob(
            store_root=self.store.root,
            run_id=name,
            spec_key=self.spec_key,
            snapshot=self.snapshot,
            checkpoint=self.checkpoint,
        )
        return replace(job, **changes)

    def closing_job(self, name: str, result: EvaluateResult) -> CloseRunJob:
        opening = OpenRunJob(
            tracking=TrackingSpec(uri=self.home.mlflow_uri, experiment="test"),
            identity=name,
            name=name,
            parent_identity=None,
            tags={},
            store_root=self.store.root,
            spec_key=self.spec_key,
            snapshot=self.snapshot,
        )
        record = EvaluationRecord(checkpoint=self.checkpoint, result=result, timestamp_ms=1_700_000_000_000)
        return CloseRunJob(opening=opening, status="FINISHED", tags={}, evaluation=record)

    @property
    def mlflow(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.home.mlflow_uri)

    def artifacts(self, run_id: str, folder: str) -> set[str]:
        return {Path(item.path).name for item in self.mlflow.list_artifacts(run_id, folder)}

    def predict(self, name: str, lines: str) -> list[dict[str, Any]]:
        self.store.publish(f"predictions/{name}/in", lambda f: _write(f / "input.jsonl", lines))
        job = PredictJob(
            store_root=self.store.root,
            spec_key=self.spec_key,
            snapshot=self.snapshot,
            checkpoint=self.checkpoint,
            input_key=f"predictions/{name}/in",
            output_key=f"predictions/{name}/out",
        )
        result = predict(job, self.store, ignore)
        assert result.key == job.output_key
        rows = read_lines(self.store.fetch(result.key) / "output.jsonl")
        assert result.num_examples == len(rows)
        return rows


def make_case(home: Home, name: str, like: RunSpec, task: Task, *, is_pair: bool) -> Case:
    store = Store(str(home.store), home.cache)
    spec = replace(like, data=_make_data(home.root / name, like.data, task, is_pair=is_pair))
    snapshot = make_snapshot(spec.data, spec.model, store)
    return Case(store, home, publish_spec(store, spec), snapshot, _make_checkpoint(store, spec, snapshot, name))


def _make_data(folder: Path, like: DataSpec, task: Task, *, is_pair: bool) -> DataSpec:
    rng = np.random.default_rng(5)
    folder.mkdir()
    files = {}
    for split, num_examples in (("train", 12), ("validation", 8), ("test", 30)):
        records = []
        for i in range(num_examples):
            first, second = (" ".join(rng.choice(WORDS, rng.integers(2, 20))) for _ in range(2))
            label = ("neg", "pos")[i % 2] if task == "classification" else float(rng.normal())
            pair = {"second": f"{second} {split}{i}"} if is_pair else {}
            records.append({"first": f"{first} {split}{i}", **pair, "y": label})
        path = folder / f"{split}.jsonl"
        path.write_text(as_lines(records))
        files[f"{split}_file"] = str(path)
    return replace(
        like,
        name=folder.name,
        source="files",
        task=task,
        path=None,
        **files,
        text_column="first",
        text_pair_column="second" if is_pair else None,
        label_column="y",
        id_column=None,
        train_size=None,
        validation_size=None,
        test_size=None,
    )


def _make_checkpoint(store: Store, spec: RunSpec, snapshot: SnapshotRef, name: str) -> CheckpointRef:
    """Publish a model as training would: its weights are random, and large enough for outputs to differ."""
    names = snapshot.label_names
    folder = resolve_model(spec.model)
    model = load_classifier(spec.model, folder, max(1, len(names)), names, snapshot.task, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 8 if parameter.ndim > 1 else 1

    def fill(target: Path) -> None:
        model.save_pretrained(target)
        (target / STATE_FILE).write_text("{}")
        write_rows(target, [])

    bundle = store.publish(f"runs/{name}/checkpoints/attempt-1/step-00000010", fill)
    return CheckpointRef(
        key=bundle.key, digest=bundle.digest, step=10, attempt=1, num_bytes=bundle.num_bytes, metrics={}
    )


def load_model(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def as_lines(records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().rstrip(b"\n").split(b"\n")]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def ignore(kind: str, value: Any) -> None:
    pass
