"""A live sweep is steered from the command line, while workers are killed; its results are those of a quiet one."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.e2e.conftest import User, until

LONG = (
    *("experiment=smoke", "lr=1e-3,3e-3", "data.train_size=1000", "trainer.batch_size=8", "trainer.max_epochs=8"),
    *("checkpoint.every_n_steps=20", "temporal.heartbeat_timeout=5", "cache=off"),
)


def start_detached(user: User, *overrides: str) -> str:
    user.train(*overrides, "hydra.launcher.detach=true")
    return user.newest_sweep()


def runs_of(user: User, sweep: str) -> list[dict[str, Any]]:
    return list(user.json("status", sweep)["runs"])


def reaches(user: User, sweep: str, index: int, status: str) -> dict[str, Any]:
    return dict(
        until(lambda: next((r for r in runs_of(user, sweep) if (r["index"], r["status"]) == (index, status)), None))
    )


def kill(user: User, role: str) -> None:
    os.kill(user.stack()["pids"][role], signal.SIGKILL)


def attempts(user: User, run: str) -> list[dict[str, Any]]:
    return list(user.json("why", run)["attempts"])


def refused(user: User, *arguments: str) -> str:
    done = user.bertpar(*arguments, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: " in done.stderr
    return done.stderr


def test_paused_and_resumed_runs_have_the_bits_of_undisturbed_ones_whatever_is_killed_meanwhile(user: User) -> None:
    user.train(*LONG, "sweep.name=undisturbed")
    undisturbed = user.newest_sweep()
    sweep = start_detached(user, *LONG, "sweep.name=steered")

    for index in (0, 1):
        until(lambda: runs_of(user, sweep)[index]["step"] > 25)  # noqa: B023
    user.bertpar("pause", f"{sweep}/1")
    reaches(user, sweep, 1, "paused")
    (left,) = attempts(user, f"{sweep}/1")
    assert (left["cause"]["error_type"], "no step is lost" in left["cause"]["message"]) == ("PreemptedError", True)

    user.bertpar("pause", f"{sweep}/0")
    kill(user, "training_worker")  # between the command and its effect
    kill(user, "eval_worker")
    reaches(user, sweep, 0, "paused")
    assert all(run["checkpoints"] for run in runs_of(user, sweep))
    user.bertpar("resume", sweep)
    kill(user, "eval_worker")

    assert user.bertpar("attach", sweep).returncode == 0
    assert all(len(attempts(user, f"{sweep}/{index}")) >= 2 for index in (0, 1))
    compared = user.json("diff", undisturbed, sweep)
    assert compared["identical"], compared
    assert [run["name"] for run in compared["runs"]][1:] == ["lr=0.001", "lr=0.003"]


def test_a_live_sweep_is_extended_dropped_from_and_completes_without_what_its_user_dropped(user: User) -> None:
    endless = ("experiment=smoke", "lr=1e-3,3e-3", "trainer.max_epochs=500", "sweep.name=edited", "cache=off")
    sweep = start_detached(user, *endless)
    until(lambda: all(run["status"] == "training" and run["step"] for run in runs_of(user, sweep)))

    assert "lr=0.003 is in the sweep already" in refused(user, "add", sweep, "lr=3e-3")
    assert "lr=5" in refused(user, "add", sweep, "lr=5")
    different = refused(user, "add", sweep, "lr=2e-3", "temporal.max_attempts=9")
    assert "temporal.max_attempts=9 (the sweep's: 5)" in different
    assert "bertpar set" in refused(user, "add", sweep, "lr=2e-3", "sweep.max_parallel=1")
    assert "no run of sweep" in refused(user, "drop", sweep, "lr=7")

    added = user.bertpar("add", sweep, "lr=2e-3", "seed=1,2", "trainer.max_epochs=1").stdout
    assert [line.partition(": ")[0] for line in added.splitlines()] == [f"{sweep}/2", f"{sweep}/3"]
    yielded = user.json("priority", f"{sweep}/3", "high", "--preempt")["yields"]
    assert yielded in (f"{sweep}/0", f"{sweep}/1")
    assert reaches(user, sweep, 3, "completed")["priority"] == "high"
    assert "only a run that is" in refused(user, "cancel", f"{sweep}/3")
    user.bertpar("set", sweep, "max_parallel=2")
    dropped = user.json("drop", sweep, "lr=1e-3,3e-3")
    assert dropped["runs"] == [f"{sweep}/0", f"{sweep}/1"]

    assert user.bertpar("attach", sweep).returncode == 0
    status = user.json("status", sweep)
    assert [run["status"] for run in status["runs"]] == ["cancelled", "cancelled", "completed", "completed"]
    assert [run["cancelled_by_user"] for run in status["runs"]] == [True, True, False, False]
    for command in (("pause", sweep), ("retry", f"{sweep}/0"), ("add", sweep, "lr=4e-3")):
        assert "has ended: completed" in refused(user, *command)
