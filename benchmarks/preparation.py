"""The data and weights of a configuration, for whoever measures a part of bertpar without its orchestration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bertpar import jobs
from bertpar.codec import publish_spec
from bertpar.composing import compose_run
from bertpar.data.reading import open_split
from bertpar.events import SnapshotJob, SnapshotRef, TrainJob
from bertpar.models import load_classifier, load_tokenizer, resolve_model
from bertpar.paths import Home
from bertpar.spec import SPLITS, RunSpec, TrackingSpec
from bertpar.store import Store


@dataclass(frozen=True, kw_only=True)
class Task:
    """The same work for everybody: one run for each learning rate and seed."""

    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    """Of train.py: what all of the runs have in common."""

    @property
    def num_runs(self) -> int:
        return len(self.learning_rates) * len(self.seeds)

    @property
    def swept(self) -> tuple[str, str]:
        """The overrides that make the runs."""
        return f"lr={','.join(map(str, self.learning_rates))}", f"seed={','.join(map(str, self.seeds))}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A configuration whose snapshot lies in a store of the benchmark's own."""

    store: Store
    spec: RunSpec
    spec_key: str
    snapshot: SnapshotRef


def prepare(overrides: Sequence[str], home: Home) -> Prepared:
    """Compose the run and make its snapshot."""
    store = Store(str(home.store), home.cache)
    spec = compose_run(list(overrides), None, home)
    spec_key = publish_spec(store, spec)
    snapshot = jobs.snapshot(SnapshotJob(store_root=store.root, spec_key=spec_key), store, lambda kind, value: None)
    return Prepared(store=store, spec=spec, spec_key=spec_key, snapshot=snapshot)


def specs_of(prepared: Prepared, task: Task) -> list[RunSpec]:
    """Return the task's runs."""
    spec = prepared.spec
    return [
        replace(spec, seed=seed, optim=replace(spec.optim, lr=lr)) for lr in task.learning_rates for seed in task.seeds
    ]


def export_splits(prepared: Prepared, folder: Path) -> None:
    """Write the snapshot's texts and labels as `train.jsonl`, `validation.jsonl` and `test.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        data = open_split(prepared.store, prepared.snapshot, split)
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for i in range(len(data)):
                file.write(json.dumps({"text": data.text(i), "label": data.example(i)["label"]}) + "\n")


def model_folder(prepared: Prepared) -> Path:
    """Return a folder with tokenizer and weights; of a random model, which has none, the run's first ones."""
    spec, names = prepared.spec, prepared.snapshot.label_names
    found = resolve_model(spec.model)
    folder = Path(prepared.store.root).parent / "model"
    if spec.model.source == "random" and not folder.exists():
        load_classifier(
            spec.model, found, len(names), names, task=prepared.snapshot.task, seed=spec.seed
        ).save_pretrained(folder)
        load_tokenizer(found).save_pretrained(folder)
    return folder if spec.model.source == "random" else found


def train_job(prepared: Prepared, spec: RunSpec) -> TrainJob:
    """Return the first attempt at a run, whose metrics MLflow is not told of."""
    spec_key = publish_spec(prepared.store, spec)
    return TrainJob(
        store_root=prepared.store.root,
        run_id=f"bench/{spec_key.rpartition('/')[2]}",
        spec_key=spec_key,
        snapshot=prepared.snapshot,
        attempt=1,
        resume_from=(),
        tracking=TrackingSpec(uri=Home(Path(prepared.store.root).parent).mlflow_uri, experiment="benchmarks"),
    )
