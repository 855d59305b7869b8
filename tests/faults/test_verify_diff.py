"""`bertpar diff` over stores and MLflow databases that hold what sweeps leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bertpar.paths import Home
from bertpar.store import Store
from bertpar.tracking import initialise_local_database


def leave_sweep(home: Home, sweep_id: str, *, weight: float = 1.0, loss: float = 0.5, repeat: bool = False) -> None:
    """Leave behind what a sweep of two runs does, where lr=2 has the given results."""
    from mlflow import MlflowClient

    store, client = Store(str(home.store), home.cache), MlflowClient(home.mlflow_uri)

    def open_run(identity: str, **tags: str) -> str:
        tags = {"bertpar.id": identity, "bertpar.sweep": sweep_id, **tags}
        return str(client.create_run("0", tags=tags).info.run_id)

    opened = [open_run(sweep_id)]
    for index, (lr, w, value) in enumerate((("1", 1.0, 0.5), ("2", weight, loss))):
        run_id = f"{sweep_id}/{index}"
        key = f"runs/{run_id}/checkpoints/attempt-1/step-00000004"
        tensors = {"body": np.zeros(3, np.float32), "head": np.full(2, w, np.float32)}
        meta: dict[str, Any] = {"step": 4, "attempt": 1, "metrics": {}}
        store.publish(key, lambda folder, t=tensors: save_file(t, folder / "model.safetensors"), meta)
        report = {"checkpoint": {"key": key, "step": 4}, "metrics": {"test/accuracy": 0.5}}

        def fill(folder: Path, report: dict[str, Any] = report) -> None:
            (folder / "report.json").write_text(json.dumps(report))
            (folder / "predictions.jsonl").write_text("{}\n")

        store.publish(f"runs/{run_id}/evaluation/0", fill)
        mlflow_run = open_run(run_id, **{"sweep.lr": lr})
        for timestamp in (1, 2) if repeat and lr == "2" else (1,):
            client.log_metric(mlflow_run, "train/loss", value, timestamp=timestamp, step=4)
        client.log_metric(mlflow_run, "train/examples_per_second", hash(sweep_id) % 1000, step=4)
        client.log_param(mlflow_run, "lr", lr)
        opened.append(mlflow_run)
    for mlflow_run in opened:
        client.set_terminated(mlflow_run)


def leave_duplicate(home: Home, identity: str) -> None:
    """Leave behind what a lost answer to the creation of a run does: an earlier run with no tag but the identity."""
    from mlflow import MlflowClient

    MlflowClient(home.mlflow_uri).create_run("0", start_time=1, tags={"bertpar.id": identity})


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Home]:
    homes = Home(tmp_path_factory.mktemp("one")), Home(tmp_path_factory.mktemp("other"))
    for home in homes:
        initialise_local_database(home)
    leave_sweep(homes[0], "a")
    leave_sweep(homes[0], "heavier", weight=1.5)
    leave_sweep(homes[0], "worse", loss=0.6)
    leave_sweep(homes[0], "twice", repeat=True)
    leave_sweep(homes[0], "duplicated")
    leave_duplicate(homes[0], "duplicated/1")
    leave_sweep(homes[1], "b")
    return homes


def diff(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bertpar.cli", "diff", *arguments]
    env = {**os.environ, "BERTPAR_HOME": str(home.root)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_sweeps_of_two_homes_with_the_same_results_are_identical(homes: tuple[Home, Home]) -> None:
    done = diff(homes[0], "a", "b", "--other-home", str(homes[1].root))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("heavier", "step 4: weights differ, first in tensor head"),
        ("worse", "step 4: metric train/loss is 0.5 (0x1.0000000000000p-1) against 0.6 (0x1.3333333333333p-1)"),
        ("twice", "twice/1: step 4: metric train/loss is logged 2 times"),
        ("duplicated", "duplicated/1: 2 MLflow runs instead of one"),
    ],
)
def test_the_run_that_differs_is_named_with_its_first_difference(
    homes: tuple[Home, Home], other: str, message: str
) -> None:
    done = diff(homes[0], "a", other)
    assert done.returncode == 1
    assert "lr=1: identical" in done.stdout
    assert "lr=2: different" in done.stdout
    assert message in done.stdout


def test_a_sweep_is_not_taken_for_another_whose_name_its_own_would_match(homes: tuple[Home, Home]) -> None:
    leave_sweep(homes[1], "b-")
    leave_sweep(homes[1], "b_", loss=0.6)
    leave_sweep(homes[1], "b_2")
    done = diff(homes[1], "b_", "b")
    assert "lr=1: identical" in done.stdout
    assert "the sweep itself" not in done.stdout
    assert "metric train/loss is 0.6 (0x1.3333333333333p-1) against 0.5" in done.stdout


def test_json_says_the_same(homes: tuple[Home, Home]) -> None:
    done = diff(homes[0], "a", "worse", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["identical"]) == (1, False)
    assert [bool(run["problems"]) for run in told["runs"]] == [False, False, True]


@pytest.mark.parametrize("name", ["b", "b's"])
def test_a_sweep_that_is_not_there_is_a_users_error(homes: tuple[Home, Home], name: str) -> None:
    done = diff(homes[0], "a", name)
    assert done.returncode == 2
    assert f"no run of sweep {name} in MLflow" in done.stderr
