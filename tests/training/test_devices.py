"""A training over two devices, as real processes: killed or told to leave, it ends with an undisturbed one's bits."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bertpar import faults
from bertpar.codec import from_json, to_json
from bertpar.events import CheckpointRef, CheckpointSaved, TrainResult
from bertpar.process import JobFailed, JobStarter, run_job
from bertpar.spec import Demand
from tests.training.conftest import SPEC, Lab, same_weights, with_trainer

TWO = with_trainer(SPEC, devices=2)


@pytest.fixture
async def starter(tmp_path: Path) -> AsyncIterator[JobStarter]:
    async with aclosing(JobStarter(tmp_path / "logs")) as starter:
        yield starter


class Trainings:
    """Attempts in processes of their own, and the checkpoints that they told of."""

    def __init__(self, lab: Lab, starter: JobStarter, log_file: Path) -> None:
        self._lab = lab
        self._starter = starter
        self._log_file = log_file
        self.saved: dict[int, CheckpointRef] = {}

    async def attempt(
        self,
        run_id: str,
        number: int = 1,
        *,
        on_checkpoint: Callable[[int], None] = lambda step: None,
        stop_asked: Callable[[], Awaitable[None]] | None = None,
    ) -> TrainResult:
        newest_first = tuple(self.saved[step] for step in sorted(self.saved, reverse=True)) if number > 1 else ()
        job = self._lab.job(TWO, run_id, attempt=number, resume_from=newest_first)

        async def on_event(kind: str, value: Any) -> None:
            if kind == "checkpoint":
                saved = from_json(CheckpointSaved, json.dumps(value)).checkpoint
                self.saved[saved.step] = saved
                on_checkpoint(saved.step)

        result = await run_job(
            self._starter,
            "train",
            replace(job, demand=Demand(devices=2)),
            on_event,
            log_file=self._log_file,
            stop_asked=stop_asked,
        )
        return from_json(TrainResult, json.dumps(result))


def ranks() -> list[psutil.Process]:
    """Return the processes of the training that runs, rank 0 first."""
    (template,) = (child for child in psutil.Process().children() if "bertpar.template" in child.cmdline())
    return template.children(recursive=True)


async def test_whichever_rank_is_killed_or_asked_to_leave_the_weights_are_those_of_an_undisturbed_run(
    lab: Lab, starter: JobStarter, tmp_path: Path
) -> None:
    trainings = Trainings(lab, starter, tmp_path / "job.log")
    whole = await trainings.attempt("two-whole")
    trainings.saved.clear()
    killed: list[psutil.Process] = []

    def kill(rank: int, at: int) -> Callable[[int], None]:
        def on_checkpoint(step: int) -> None:
            if step == at:
                killed.extend(ranks())
                assert len(killed) == 2
                killed[rank].kill()

        return on_checkpoint

    with pytest.raises(JobFailed, match="rank 1 of the training was killed by SIGKILL") as failed:
        await trainings.attempt("two-killed", on_checkpoint=kill(1, at=2))
    assert failed.value.failure.error_type == "ProcessDiedError"
    assert psutil.wait_procs(killed, timeout=10)[1] == []
    killed.clear()
    with pytest.raises(Exception, match="was killed by SIGKILL without a result"):
        await trainings.attempt("two-killed", 2, on_checkpoint=kill(0, at=6))
    assert psutil.wait_procs(killed, timeout=10)[1] == []

    leaving = asyncio.Event()

    def leave(step: int) -> None:
        if step > 6:  # not when it says again what it goes on from: it does not train yet
            leaving.set()

    async def stop_asked() -> None:
        await leaving.wait()

    with pytest.raises(JobFailed, match="no step is lost"):
        await trainings.attempt("two-killed", 3, on_checkpoint=leave, stop_asked=stop_asked)
    result = await trainings.attempt("two-killed", 4)
    assert result.resumed_from_step > 6
    assert (result.best.step, result.metrics) == (whole.best.step, whole.metrics)
    assert same_weights(lab.weights(result.last), lab.weights(whole.last))


async def test_a_checkpoint_that_is_being_written_when_another_rank_dies_is_kept(lab: Lab, tmp_path: Path) -> None:
    """Forced: the writing process is stopped until the other one is dead, and has time to notice it while it writes."""
    orders = tmp_path / "orders"
    orders.mkdir()
    for point in ("before_write", "written", "fsynced"):
        faults.order(orders, f"checkpoint.{point}", "stop")
    async with aclosing(JobStarter(tmp_path / "logs", {faults.VARIABLE: str(orders)})) as starter:
        trainings = Trainings(lab, starter, tmp_path / "job.log")
        attempt = asyncio.create_task(trainings.attempt("two-writing"))
        async with asyncio.timeout(60):
            while not list(orders.glob("taken-*")):
                await asyncio.sleep(0.05)
            writing, other = ranks()
            other.kill()
            while ranks():
                with suppress(psutil.NoSuchProcess):
                    if writing.status() == psutil.STATUS_STOPPED:
                        writing.resume()
                await asyncio.sleep(0.05)
        with pytest.raises(JobFailed, match="rank 1 of the training was killed by SIGKILL"):
            await attempt
    assert list(trainings.saved) == [2]


@pytest.fixture(scope="module")
def told(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what two ranks have got, and one alone."""
    folder = tmp_path_factory.mktemp("ranks")
    job_file = folder / "job"
    job_file.write_text(to_json(lab.job(with_trainer(TWO, max_steps=5, batch_size=3), "two-ranks")))
    command = [sys.executable, "-m", "tests.training.two_ranks", str(job_file), str(folder)]
    subprocess.run(command, check=True, timeout=120)
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_ranks_get_the_same_mean_over_all_examples_of_a_step_though_one_has_none(told: dict[str, Any]) -> None:
    assert told["0"]["averages"] == told["1"]["averages"]
    loss, gradient = 53.5, [-54.0, -67.0]  # of all four at once: they give -2, -5, -8 and -11
    for mean, used, unused in told["0"]["averages"]:
        assert (mean, used) == (pytest.approx(loss), pytest.approx(gradient))
        assert unused is None  # so that no weight decays which the loss does not depend on


def test_the_losses_of_a_training_over_two_devices_are_those_of_one_device(told: dict[str, Any]) -> None:
    assert len(told["alone"]) == 5
    assert told["0"]["together"] == told["1"]["together"]
    assert told["0"]["together"] == pytest.approx(told["alone"], rel=1e-4)


_A_RANK_FAILS = """
import os, threading, time
from bertpar import ranks
from bertpar.jobs import die_with

team = ranks.form_team(3, die_with)

def work():
    if team.rank == 2:
        raise MemoryError("out of memory")

if team.rank:
    team.be_replica(work)

def fail(failure):
    print(failure.error_type, failure.message, flush=True)
    os._exit(3)

def lose_connection():
    ranks._NEWS_SECONDS = 0.0
    team.wait_for_news()
    print("connection lost", flush=True)

with team.writing:
    team.watch(fail)
    team._has_news.wait(30)
    threading.Thread(target=lose_connection).start()
    time.sleep(0.5)
    print("written", flush=True)
threading.Event().wait(60)
"""


def test_a_failure_of_another_rank_keeps_its_class_and_ends_the_training_when_nothing_is_being_written() -> None:
    done = subprocess.run([sys.executable, "-c", _A_RANK_FAILS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "written\nOutOfMemoryError MemoryError: out of memory\n"), done.stderr


_A_RANK_STOPS = """
import os, signal, time
from bertpar import jobs, ranks

ranks.TICK_SECONDS = jobs.TICK_SECONDS = 0.1
ranks._LONGEST_SILENCE_SECONDS = 1.0
team = ranks.form_team(2, jobs.die_with)
if team.rank:
    team.be_replica(lambda: None)
team.watch(lambda failure: None)
began, ticks = time.monotonic(), []

def emit(kind, value):
    ticks.append(time.monotonic() - began)

ranks.threading.Thread(target=jobs._tick, args=(emit, team), daemon=True).start()
while len(ticks) < 6:
    time.sleep(0.05)
os.kill(team._members[0].pid, signal.SIGSTOP)
while team.is_alive():
    time.sleep(0.05)
told = len(ticks)
time.sleep(1.0)
print(len(ticks) - told)
os._exit(0)
"""


def test_a_training_of_which_a_rank_is_stopped_gives_no_sign_of_life() -> None:
    done = subprocess.run([sys.executable, "-c", _A_RANK_STOPS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stdout + done.stderr
