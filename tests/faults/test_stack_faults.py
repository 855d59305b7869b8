"""The whole stack under real sweeps: everything killed at once, and outages of Temporal, short and long."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from bertpar.paths import Home
from tests.e2e.conftest import User, until
from tests.stack.helpers import processes_of

SLOW = ("cache=off", "experiment=smoke", "data.train_size=2000", "trainer.batch_size=8", "checkpoint.every_n_steps=10")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    user = User(tmp_path_factory.mktemp("home"))
    user.bertpar("up", "--slots", "1")
    yield user
    user.bertpar("down", check=False)
    assert processes_of(Home(user.home)) == []


def kill_everything(user: User) -> None:
    """Kill supervisor, server, workers, templates and jobs; not the client."""
    while found := processes_of(Home(user.home)):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start(user: User, name: str, *overrides: str) -> tuple[subprocess.Popen[str], str]:
    """Start a client with a sweep of one; return it and the sweep's id when a first checkpoint is there."""
    client = user.start_training(*SLOW, f"sweep.name={name}", *overrides)
    sweep = until(lambda: next((s["sweep_id"] for s in user.json("ls") if s["sweep_id"].startswith(name)), None))
    until(lambda: user.json("checkpoints", f"{sweep}/0"))
    return client, str(sweep)


def job_of(user: User) -> int:
    """Return the pid of the training process: a child of the training worker's template."""
    worker = psutil.Process(user.stack()["pids"]["training_worker"])
    (template,) = worker.children()
    (job,) = template.children()
    return int(job.pid)


def cut_off(user: User, seconds: float) -> None:
    """Kill Temporal's server, and keep the supervisor from starting it again for so long."""
    pids = user.stack()["pids"]
    os.kill(pids["supervisor"], signal.SIGSTOP)
    os.kill(pids["temporal"], signal.SIGKILL)
    time.sleep(seconds)
    os.kill(pids["supervisor"], signal.SIGCONT)


def test_after_everything_was_killed_status_alone_brings_an_unfinished_sweep_to_its_end(user: User) -> None:
    client, sweep = start(user, "all-killed", "temporal.heartbeat_timeout=3", "trainer.max_epochs=3")
    client.kill()
    client.wait()
    kill_everything(user)
    said = user.bertpar("status")
    assert "died; starting it again" in said.stderr
    until(lambda: user.json("status", sweep)["status"] == "completed")
    why = user.json("why", f"{sweep}/0")
    first, second = why["attempts"]
    assert first["cause"]["error_type"] == "WorkerLostError"
    assert 0 < second["resumed_from_step"] <= first["reached_step"]
    assert first["lost_steps"] == first["reached_step"] - second["resumed_from_step"]
    assert (second["outcome"], second["reached_step"]) == ("completed", 750)
    assert why["evaluation"]["outcome"] == "completed"
    assert "2 attempts at training" in user.bertpar("why", f"{sweep}/0").stdout


def test_a_client_that_follows_brings_back_what_was_killed_and_follows_to_the_end(user: User) -> None:
    client, sweep = start(user, "followed", "temporal.heartbeat_timeout=3", "trainer.max_epochs=3")
    kill_everything(user)
    output, _ = client.communicate(timeout=240)
    assert client.returncode == 0, output
    assert output.count("died; starting it again") == 1
    assert f"sweep {sweep} completed" in output


def test_an_outage_shorter_than_the_heartbeat_timeout_leaves_the_attempt_untouched(user: User) -> None:
    client, sweep = start(user, "short", "temporal.heartbeat_timeout=20", "trainer.max_epochs=10")
    job = job_of(user)
    cut_off(user, 10)
    assert job_of(user) == job
    output, _ = client.communicate(timeout=240)
    assert client.returncode == 0, output
    assert "waiting for Temporal" in output
    assert output.count("Temporal answers again") == 1
    (attempt,) = user.json("why", f"{sweep}/0")["attempts"]
    assert attempt["outcome"] == "completed"


def test_an_outage_longer_than_the_heartbeat_timeout_costs_one_attempt_and_no_run(user: User) -> None:
    client, sweep = start(user, "long", "temporal.heartbeat_timeout=3", "trainer.max_epochs=10")
    cut_off(user, 10)
    output, _ = client.communicate(timeout=240)
    assert client.returncode == 0, output
    first, second = user.json("why", f"{sweep}/0")["attempts"]
    assert first["cause"]["error_type"] == "WorkerLostError"
    assert second["resumed_from_step"] > 0
