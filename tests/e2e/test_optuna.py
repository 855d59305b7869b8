"""The stock Optuna sweeper drives the launcher: three batches of two are one sweep, and its best trial the best run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.e2e.conftest import User

NUM_TRIALS = 6


@pytest.fixture(scope="module")
def driven(user: User, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Any]]:
    """What train.py printed, the sweep's id, and what Optuna wrote as its result.

    Two words tell the labels apart, so that the learning rate decides how much is learnt in a few steps.
    """
    folder = tmp_path_factory.mktemp("optuna")
    rows = [f"film {i} is {('dull', 'warm')[i % 2]},{('bad', 'good')[i % 2]}" for i in range(400)]
    (folder / "films.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    printed = user.train(
        *("hydra/sweeper=optuna", f"hydra.sweeper.n_trials={NUM_TRIALS}", "hydra.sweeper.n_jobs=2"),
        *("hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=3", f"hydra.sweep.dir={folder / 'swept'}"),
        *("experiment=smoke", "data=files", f"data.train_file={folder / 'films.csv'}", "sweep.name=optuna"),
        *("data.train_size=null", "data.validation_size=null", "data.test_size=null"),
        *("trainer.max_steps=40", "trainer.batch_size=32", "lr=tag(log,interval(1e-4,3e-2))"),
    ).stdout
    found = re.match(r"sweep (\S+): runs as its sweeper asks for them\n", printed)
    assert found is not None, printed
    return printed, found[1], _result(folder / "swept")


def _result(folder: Path) -> dict[str, Any]:
    result = OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))
    assert isinstance(result, dict)
    return {str(key): value for key, value in result.items()}


def test_three_batches_are_one_sweep_of_six_runs(user: User, driven: tuple[str, str, dict[str, Any]]) -> None:
    printed, sweep, _ = driven
    status = user.json("status", sweep)
    assert [run["index"] for run in status["runs"]] == list(range(NUM_TRIALS))
    assert {run["status"] for run in status["runs"]} == {"completed"}
    assert status["status"] == "completed"
    assert printed.count(f"sweep {sweep} completed") == printed.count("rank") == 1
    assert sum(entry["sweep_id"].startswith("optuna") for entry in user.json("ls")) == 1


def test_the_best_trial_is_the_best_run(user: User, driven: tuple[str, str, dict[str, Any]]) -> None:
    _, sweep, result = driven
    runs = user.json("status", sweep)["runs"]
    values = [run["metrics"]["val/accuracy"] for run in runs]
    assert len(set(values)) > 1, "every trial came to the same: nothing is shown"
    best = runs[values.index(max(values))]
    assert result["name"] == "optuna"
    assert result["best_value"] == max(values)
    assert f"lr={result['best_params']['lr']}" in best["overrides"]
