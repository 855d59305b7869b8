"""A sweep with a limited budget of compute time, from the command line: it stops by itself, and is gone on with."""

from __future__ import annotations

import pytest

from bertpar.tracking.connection import mlflow_client
from tests.e2e.conftest import User, until
from tests.e2e.test_reuse import SMOKE, runs_of

ENDLESS = (*SMOKE, "trainer.max_epochs=1500", "checkpoint.every_n_steps=4", "lr=7e-4,8e-4")


def test_a_sweep_stops_when_its_budget_is_used_up_and_the_same_command_goes_on(user: User) -> None:
    following = user.start_training(*ENDLESS, "budget.hours=5")
    sweep = until(lambda: _sweep_with_checkpoints(user))
    refused = user.bertpar("set", sweep, f"budget.hours={_spent_hours(user, sweep) / 2}", check=False)
    assert (refused.returncode, "is spent already" in refused.stderr) == (2, True)
    budget = _spent_hours(user, sweep) + 30 / 3600
    user.bertpar("set", sweep, f"budget.hours={budget}")
    told, _ = following.communicate(timeout=120)
    assert following.returncode == 1
    assert "of compute time is used up. The command that started it goes on from its checkpoints" in told
    seen = user.json("status", sweep)
    assert (seen["status"], seen["budget_hours"]) == ("cancelled", pytest.approx(budget))
    assert seen["spent_seconds"] >= budget * 3600 * 0.99
    assert all(run["status"] == "cancelled" and run["lost_seconds"] < run["spent_seconds"] for run in seen["runs"])
    refused = user.bertpar("resume", sweep, check=False)
    assert (refused.returncode, "is used up" in refused.stderr) == (2, True)
    with mlflow_client(f"sqlite:///{user.home / 'mlflow.db'}") as client:
        tags = client.get_run(seen["mlflow_run_id"]).data.tags
    assert float(tags["bertpar.spent_seconds"]) == pytest.approx(seen["spent_seconds"], abs=0.1)

    user.train(*ENDLESS, "hydra.launcher.detach=true")
    after = user.newest_sweep()
    until(lambda: all(run["origin"] is not None for run in runs_of(user, after)))
    assert [run["origin"] for run in runs_of(user, after)] == [f"{sweep}/0", f"{sweep}/1"]
    assert all(run["saved_seconds"] > 0 for run in runs_of(user, after))
    user.bertpar("cancel", after)


def _sweep_with_checkpoints(user: User) -> str | None:
    """Return the sweep once both of its runs have made checkpoints."""
    sweeps = user.json("ls") if (user.home / "stack.json").exists() else []
    running = [sweep["sweep_id"] for sweep in sweeps if sweep["status"] == "running"]
    found = [sweep for sweep in running if all(run["checkpoints"] > 2 for run in runs_of(user, sweep))]
    return found[0] if found else None


def _spent_hours(user: User, sweep: str) -> float:
    return float(user.json("status", sweep)["spent_seconds"]) / 3600
