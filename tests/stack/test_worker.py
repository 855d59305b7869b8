"""A worker process: it waits for its server, works, and leaves in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client

from bertpar import stack
from bertpar import worker as workers
from bertpar.client import connect, temporal_spec
from bertpar.paths import Home
from bertpar.worker import make_worker, run_until_stopped
from tests.stack.helpers import wait_for
from tests.stack.lingering import Lingering, Slow

QUEUE = "test-queue"


@pytest.fixture
async def client(home: Home) -> Client:
    return await connect(temporal_spec(), home)


async def test_sigterm_lets_running_work_of_every_queue_end_within_the_grace(client: Client) -> None:
    async with make_worker("eval", client, queue=QUEUE, num_slots=1, workflows=[Lingering], activities=[]):
        assert await _stopped_while_lingering(client, timedelta(seconds=0.5), grace=10) == ["done"] * 2


async def test_sigterm_cancels_what_does_not_end_within_the_grace_on_any_queue(client: Client) -> None:
    async with make_worker("eval", client, queue=QUEUE, num_slots=1, workflows=[Lingering], activities=[]):
        assert await _stopped_while_lingering(client, timedelta(seconds=50), grace=0.2) == ["cut short"] * 2


async def _stopped_while_lingering(client: Client, duration: timedelta, *, grace: float) -> list[str]:
    """Send SIGTERM to two workers (in this process) that have begun to linger; return how their activities ended."""
    begun = {"one-queue": asyncio.Event(), "other-queue": asyncio.Event()}
    handles = [
        await client.start_workflow(
            Lingering.run, Slow(duration=duration, queue=queue), id=f"linger-{duration}-{queue}", task_queue=QUEUE
        )
        for queue in begun
    ]

    @activity.defn
    async def linger(work: Slow) -> str:
        begun[activity.info().task_queue].set()
        try:
            await asyncio.sleep(work.duration.total_seconds())
        except asyncio.CancelledError:
            return "cut short"
        return "done"

    workers = [
        make_worker(
            "training",
            client,
            queue=queue,
            num_slots=1,
            grace=timedelta(seconds=grace),
            workflows=[],
            activities=[linger],
        )
        for queue in begun
    ]
    running = asyncio.create_task(run_until_stopped(workers))
    for event in begun.values():
        await asyncio.wait_for(event.wait(), 20)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)
    return [await handle.result() for handle in handles]


def test_a_worker_waits_for_its_server_and_starts_when_that_answers(home: Home, tmp_path: Path) -> None:
    address = stack.ensure_up(home).temporal_address
    stack.down(home)
    log, ready = tmp_path / "worker.log", tmp_path / "ready"
    arguments = ["worker", "eval", "--address", address, "--queue", "another", "--ready-file", str(ready)]
    with log.open("wb") as output:
        worker = subprocess.Popen([sys.executable, "-m", "bertpar.cli", *arguments], stderr=output)
    try:
        wait_for(lambda: "waiting for the Temporal server" in log.read_text() or None, "complaint")
        assert worker.poll() is None
        stack.ensure_up(home)
        wait_for(lambda: ready.exists() and ready.read_text() == str(worker.pid), "readiness")
        worker.terminate()
        assert worker.wait(timeout=20) == 0
    finally:
        worker.kill()
        worker.wait()
    assert "Traceback" not in log.read_text()


async def test_a_worker_that_cannot_say_that_it_is_ready_works_and_says_so_later(
    client: Client, tmp_path: Path
) -> None:
    """As on a full disk; a missing folder is as good."""
    ready = tmp_path / "later" / "ready"
    done = asyncio.Event()

    @activity.defn
    async def linger(work: Slow) -> str:
        return "done"

    async def say_ready() -> None:
        await workers._say_ready(ready)
        done.set()

    async with make_worker("eval", client, queue=QUEUE, num_slots=1, workflows=[Lingering], activities=[]):
        worker = make_worker("training", client, queue="unready", num_slots=1, workflows=[], activities=[linger])
        running = asyncio.create_task(run_until_stopped([worker], say_ready))
        work = Slow(duration=timedelta(0), queue="unready")
        assert await client.execute_workflow(Lingering.run, work, id="linger-unready", task_queue=QUEUE) == "done"
        assert not done.is_set()
        ready.parent.mkdir()
        await asyncio.wait_for(done.wait(), 20)
        assert ready.read_text() == str(os.getpid())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)


async def test_a_failure_beside_the_work_stops_the_worker_and_is_raised(client: Client) -> None:
    async def fail() -> None:
        raise KeyError("a bug")

    worker = make_worker("training", client, queue="failing", num_slots=1, workflows=[], activities=[_nothing])
    with pytest.raises(KeyError):
        await asyncio.wait_for(run_until_stopped([worker], fail), 20)


@activity.defn
async def _nothing() -> None:
    pass
