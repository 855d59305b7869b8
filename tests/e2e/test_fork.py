"""A new run from another run's checkpoint: in its sweep while that runs, in one of its own afterwards."""

from __future__ import annotations

import json

from tests.e2e.conftest import User, until

SMOKE = ("experiment=smoke", "data.train_size=64", "data.validation_size=16", "data.test_size=16")
LONG = (*SMOKE, "trainer.max_epochs=100", "trainer.validate_every_n_steps=8", "checkpoint.every_n_steps=4")


def test_a_run_of_a_live_sweep_is_forked_into_it_and_its_checkpoint_outlives_gc(user: User) -> None:
    user.train(*LONG, "lr=4e-3", "cache=off", "hydra.launcher.detach=true")
    sweep = user.newest_sweep()
    until(lambda: user.json("status", sweep)["runs"][0]["metrics"])
    told = json.loads(user.bertpar("fork", f"{sweep}/0", "lr=1e-6", "trainer.max_epochs=1", "--json").stdout)
    assert (told["sweep_id"], told["runs"]) == (sweep, [f"{sweep}/1"])
    origin, step = told["forked_from"].split("@")
    assert origin == f"{sweep}/0"
    user.bertpar("attach", sweep)
    first, second = user.json("status", sweep)["runs"]
    assert (first["status"], second["status"]) == ("completed", "completed")
    assert (first["forks"], second["forked_from"]) == ([f"{sweep}/1"], f"{sweep}/0@{step}")
    assert second["total_steps"] < first["total_steps"]

    user.bertpar("gc", "--yes")
    kept = {entry["step"]: entry["kept_because"] for entry in user.json("checkpoints", f"{sweep}/0")}
    assert any("forked from" in reason for reason in kept[int(step)])

    refused = user.bertpar("fork", f"{sweep}/0@9999", "lr=1e-6", check=False)
    assert refused.returncode == 2
    assert "has no checkpoint of step 9999" in refused.stderr
    assert f"there are: {min(kept)}" in refused.stderr


def test_a_run_of_an_ended_sweep_is_forked_into_a_sweep_of_its_own(user: User) -> None:
    user.train(*SMOKE, "lr=6e-3")
    sweep = user.newest_sweep()
    told = json.loads(user.bertpar("fork", sweep, "lr=1e-6,1e-5", "--json").stdout)
    assert told["sweep_id"] != sweep
    user.bertpar("attach", told["sweep_id"])
    runs = user.json("status", told["sweep_id"])["runs"]
    assert [run["forked_from"].split("@")[0] for run in runs] == [f"{sweep}/0", f"{sweep}/0"]
    assert [run["status"] for run in runs] == ["completed", "completed"]

    wrong = user.bertpar("fork", sweep, "lr=-1", check=False)
    assert wrong.returncode == 2
    assert "lr=-1 must be a number > 0" in wrong.stderr
