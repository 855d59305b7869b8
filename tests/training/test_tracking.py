"""MLflow for real: a SQLite store in a temporary folder, and other processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bertpar import faults, tracking
from bertpar.checkpoints import ROWS_FILE, checkpoint_key, write_rows
from bertpar.codec import from_json, publish_spec, to_json
from bertpar.errors import CorruptError, StoreError, TrackingError
from bertpar.events import MetricRow, SnapshotRef
from bertpar.mlflow_jobs import REUSED_TAG, CloseRunJob, MlflowRun, OpenRunJob
from bertpar.paths import Home
from bertpar.spec import TrackingSpec
from bertpar.store import Store
from bertpar.tracking import connection
from tests.training.conftest import SPEC

SNAPSHOT = SnapshotRef(
    key="snapshots/abc",
    digest="0123456789abcdef" * 4,
    task="classification",
    label_names=("neg", "pos"),
    num_examples={"train": 56, "validation": 24, "test": 24},
    tokenizer_key="tokenizers/t",
)


class Bench:
    """A store and an MLflow database of its own."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.store = Store(str(self.home.store), self.home.cache)
        self.tracking = TrackingSpec(uri=self.home.mlflow_uri, experiment="sweeps")
        tracking.initialise_local_database(self.home)
        self.client = MlflowClient(tracking_uri=self.home.mlflow_uri)

    def job(self, identity: str, **changes: Any) -> OpenRunJob:
        spec = replace(SPEC, config={"lr": 1e-5, "model": {"name": "tiny", "revision": None}, "flag": True})
        job = OpenRunJob(
            tracking=self.tracking,
            identity=identity,
            name="lr=1e-05",
            parent_identity=None,
            tags={"lr": "1e-05", "bertpar.sweep": "s"},
            store_root=self.store.root,
            spec_key=publish_spec(self.store, spec),
            snapshot=SNAPSHOT,
        )
        return replace(job, **changes)

    def open(self, identity: str, **changes: Any) -> MlflowRun:
        return tracking.open_run(self.job(identity, **changes), self.store)

    def close(self, identity: str, status: Any) -> MlflowRun:
        job = CloseRunJob(opening=self.job(identity), status=status, tags={"bertpar.attempt": "2"})
        return tracking.close_run(job, self.store)

    def runs_of(self, identity: str) -> list[Any]:
        experiment = tracking.ensure_experiment(self.tracking)
        return list(self.client.search_runs([experiment], f"tags.`bertpar.id` = '{identity}'"))

    def history(self, run_id: str, key: str) -> list[tuple[int, int, float]]:
        return [(m.step, m.timestamp, m.value) for m in self.client.get_metric_history(run_id, key)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("home"))


def test_a_run_that_is_computed_after_all_no_longer_says_that_it_was_reused(bench: Bench) -> None:
    bench.open("made-after-all/0", tags={REUSED_TAG: "other/0"})
    opened = bench.open("made-after-all/0", tags={})
    assert REUSED_TAG not in bench.client.get_run(opened.run_id).data.tags


def test_an_opened_run_carries_parameters_tags_config_and_dataset(bench: Bench) -> None:
    parent = bench.open("full", spec_key=None, snapshot=None)
    opened = bench.open("full/0", parent_identity="full")
    run = bench.client.get_run(opened.run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "lr=1e-05"
    assert run.data.params == {
        "lr": "1e-05",
        "model.name": "tiny",
        "model.revision": "null",
        "flag": "true",
    }
    assert run.data.tags["lr"] == "1e-05"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "movie_reviews"
    assert SNAPSHOT.digest.startswith(dataset.dataset.digest)
    assert '"train": 56' in dataset.dataset.profile
    config = Path(bench.client.download_artifacts(opened.run_id, "config.yaml")).read_text()
    assert "revision: null" in config
    assert not bench.client.get_run(parent.run_id).data.params


def test_a_null_that_the_specification_decides_is_logged_as_decided(bench: Bench) -> None:
    spec = replace(SPEC, config={"checkpoint": {"monitor": None}, "model": {"revision": None}})
    opened = bench.open("decided", spec_key=publish_spec(bench.store, spec))
    params = bench.client.get_run(opened.run_id).data.params
    assert params == {"checkpoint.monitor": SPEC.checkpoint.monitor, "model.revision": "null"}


def test_a_runs_description_links_to_temporal_and_is_the_users_afterwards(bench: Bench) -> None:
    tags = {"bertpar.temporal_url": "http://h/workflows/w"}
    run_id = bench.open("described", tags=tags).run_id
    assert (
        bench.client.get_run(run_id).data.tags["mlflow.note.content"] == "[Workflow in Temporal](http://h/workflows/w)"
    )
    bench.client.set_tag(run_id, "mlflow.note.content", "mine")
    bench.open("described", tags=tags)
    assert bench.client.get_run(run_id).data.tags["mlflow.note.content"] == "mine"


def test_the_experiment_is_shown_as_one_of_training(bench: Bench) -> None:
    tags = bench.client.get_experiment(tracking.ensure_experiment(bench.tracking)).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_files_of_runs_lie_beside_the_database_not_in_the_working_folder(bench: Bench) -> None:
    run = bench.client.get_run(bench.open("where").run_id)
    assert run.info.artifact_uri.startswith(bench.home.mlflow_artifacts.as_uri())
    default = bench.client.get_experiment("0").artifact_location
    assert default.startswith(bench.home.mlflow_artifacts.as_uri())


def test_opening_a_run_again_finds_it_and_changes_nothing(bench: Bench) -> None:
    first = bench.open("again")
    before = bench.client.get_run(first.run_id).to_dictionary()
    assert bench.open("again") == first
    assert bench.client.get_run(first.run_id).to_dictionary() == before
    assert len(bench.runs_of("again")) == 1


def test_a_failed_run_is_continued_and_a_finished_one_is_left_alone(bench: Bench) -> None:
    failed, finished = bench.open("failed"), bench.open("finished")
    bench.close("failed", "FAILED")
    bench.close("finished", "FINISHED")
    assert bench.open("failed") == failed
    assert bench.open("finished") == finished
    assert bench.client.get_run(failed.run_id).info.status == "RUNNING"
    assert bench.client.get_run(finished.run_id).info.status == "FINISHED"
    assert bench.client.get_run(finished.run_id).data.tags["bertpar.attempt"] == "2"


def test_closing_twice_keeps_the_end_time(bench: Bench) -> None:
    run = bench.open("closing")
    bench.close("closing", "KILLED")
    end_time = bench.client.get_run(run.run_id).info.end_time
    time.sleep(0.01)
    bench.close("closing", "KILLED")
    assert end_time is not None
    assert bench.client.get_run(run.run_id).info.end_time == end_time
    bench.close("closing", "FINISHED")
    assert bench.client.get_run(run.run_id).info.status == "FINISHED"


def test_of_two_runs_that_a_lost_answer_made_the_earliest_stays(bench: Bench) -> None:
    experiment = tracking.ensure_experiment(bench.tracking)
    later, earlier = (
        bench.client.create_run(experiment, start_time=t, tags={"bertpar.id": "twice"}) for t in (2000, 1000)
    )
    assert bench.open("twice").run_id == earlier.info.run_id
    assert [run.info.run_id for run in bench.runs_of("twice")] == [earlier.info.run_id]
    assert bench.client.get_run(later.info.run_id).info.lifecycle_stage == "deleted"


def test_a_run_that_appears_later_does_not_replace_the_one_in_the_store(bench: Bench) -> None:
    first = bench.open("late twin")
    twin = bench.client.create_run(first.experiment_id, start_time=1000, tags={"bertpar.id": "late twin"})
    assert bench.open("late twin") == first  # whatever the other one says of its start
    assert bench.client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"


def test_whoever_opens_a_run_waits_until_nobody_else_opens_one(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        with bench.store.only_one("mlflow"):
            opening = pool.submit(bench.open, "in turn")
            with pytest.raises(TimeoutError):
                opening.result(timeout=1)
            assert bench.runs_of("in turn") == []
        assert opening.result(timeout=30).run_id == bench.runs_of("in turn")[0].info.run_id


_OPEN_WHEN_TOLD = """
import sys
from bertpar import tracking
from bertpar.checkpoints import ROWS_FILE, checkpoint_key, write_rows
from bertpar.codec import from_json, to_json
from bertpar.mlflow_jobs import OpenRunJob
from bertpar.store import Store
from pathlib import Path
import mlflow

job = from_json(OpenRunJob, sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(to_json(tracking.open_run(job, Store(job.store_root, Path(job.store_root) / "cache"))))
"""


def test_processes_that_open_a_run_at_once_in_a_new_database_get_one_run(bench: Bench, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    job = bench.job("race/0", tracking=TrackingSpec(uri=uri, experiment="race"))
    command = [sys.executable, "-c", _OPEN_WHEN_TOLD, to_json(job)]
    racers = [subprocess.Popen(command, text=True, stdin=-1, stdout=-1) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = {from_json(MlflowRun, racer.communicate(timeout=60)[0]) for racer in racers}
    assert len(answers) == 1
    (opened,) = answers
    runs = MlflowClient(tracking_uri=uri).search_runs([opened.experiment_id])
    assert [run.info.run_id for run in runs] == [opened.run_id]


def test_a_run_carries_its_sweep_from_its_creation_on(bench: Bench, tmp_path: Path) -> None:
    faults.order(tmp_path, "mlflow.run_created", "kill")
    command = [sys.executable, "-c", _OPEN_WHEN_TOLD, to_json(bench.job("just created"))]
    done = subprocess.run(command, env={**os.environ, faults.VARIABLE: str(tmp_path)}, input="go\n", text=True)
    assert done.returncode == -signal.SIGKILL
    (run,) = bench.runs_of("just created")
    assert run.data.tags["bertpar.sweep"] == "s"


def test_a_database_wanted_by_many_at_once_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make_slowly(path: Path) -> None:
        time.sleep(0.1)  # so that all would be in here together
        made.append(path)
        path.write_bytes(b"a database")

    monkeypatch.setattr(connection, "_make_database", make_slowly)
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tracking.initialise_database, [uri] * 4))
    assert made == [tmp_path / "new" / "mlflow.db"]


def test_runs_opened_at_once_in_a_new_experiment_share_it_and_their_dataset(bench: Bench) -> None:
    spec = replace(bench.tracking, experiment="at once")
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda i: bench.open(f"at_once/{i % 3}", tracking=spec), range(6)))
    assert len({run.experiment_id for run in opened}) == 1
    assert [run.run_id for run in opened[:3]] == [run.run_id for run in opened[3:]]
    runs = bench.client.search_runs([opened[0].experiment_id])
    assert {run.info.run_id for run in runs} == {run.run_id for run in opened}
    assert all(len(run.inputs.dataset_inputs) == 1 for run in runs)


def test_the_database_is_in_wal_mode_and_nothing_unfinished_is_left(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.home.mlflow_db)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not [p for p in bench.home.root.iterdir() if p.is_dir() and p.name.startswith(".mlflow")]


def test_logging_the_same_rows_again_adds_nothing(bench: Bench) -> None:
    run = bench.open("rows").run_id
    rows = [MetricRow(key="train/loss", value=1 / (3 + i), step=i, timestamp_ms=1000 + i) for i in range(1500)]
    tracking.log_rows(bench.tracking.uri, run, rows[:700])
    tracking.log_rows(bench.tracking.uri, run, rows)  # half of them are there already
    tracking.log_rows(bench.tracking.uri, run, rows)
    assert bench.history(run, "train/loss") == [(r.step, r.timestamp_ms, r.value) for r in rows]


def test_rows_arrive_with_all_their_bits(bench: Bench) -> None:
    run = bench.open("bits").run_id
    values = [0.1 + 0.2, 1e-300, -1 / 3, 5e15 + 1]
    rows = [MetricRow(key="x", value=v, step=i, timestamp_ms=5) for i, v in enumerate(values)]
    tracking.log_rows(bench.tracking.uri, run, rows)
    assert [repr(value) for _, _, value in bench.history(run, "x")] == [repr(v) for v in values]


def test_more_parameters_than_mlflow_takes_at_once_are_all_logged(bench: Bench) -> None:
    config = {f"key{i}": i for i in range(250)} | {"long": "x" * 9000}
    key = publish_spec(bench.store, replace(SPEC, config=config))
    run = bench.open("many", spec_key=key)
    assert bench.open("many", spec_key=key) == run
    assert len(bench.client.get_run(run.run_id).data.params) == 251


def test_a_deleted_experiment_is_named_in_the_error(bench: Bench) -> None:
    spec = replace(bench.tracking, experiment="gone")
    bench.client.delete_experiment(tracking.ensure_experiment(spec))
    with pytest.raises(TrackingError, match=r"tracking\.experiment=gone .* deleted"):
        tracking.ensure_experiment(spec)


def test_a_failed_run_whose_waiting_rows_are_damaged_is_closed_and_says_so_and_a_finished_one_is_not(
    bench: Bench,
) -> None:
    for run_id, status in (("torn-failed", "FAILED"), ("torn-finished", "FINISHED")):
        opened = bench.open(run_id)
        row = MetricRow(key="train/loss", value=1.0, step=3, timestamp_ms=1)
        key = checkpoint_key(run_id, 1, 3)
        meta = {"step": 3, "attempt": 1, "metrics": {}}
        bench.store.publish(key, partial(write_rows, rows=[row]), meta)
        (Path(bench.store.root) / key / ROWS_FILE).write_text("[")
        if status == "FINISHED":  # what is missing of it can be made again
            with pytest.raises(CorruptError, match=f"{run_id}.*metric_rows.json"):
                bench.close(run_id, status)
            assert bench.client.get_run(opened.run_id).info.status == "RUNNING"
        else:
            run = bench.client.get_run(bench.close(run_id, status).run_id)
            assert run.info.status == status
            assert "metric_rows.json" in run.data.tags["bertpar.incomplete"]


def test_a_store_that_is_not_mounted_gets_nothing(tmp_path: Path, bench: Bench) -> None:
    """Else it would look like one that has lost its specifications."""
    bare = tmp_path / "mount point"
    bare.mkdir()
    with pytest.raises(StoreError, match="Is it mounted"):
        tracking.open_run(bench.job("unmounted", spec_key=None), Store(str(bare), tmp_path / "cache"))
    assert not list(bare.iterdir())
