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
from bertpar.client import connect, temporal_spec
from bertpar.paths import Home
from bertpar.worker import make_worker, run_worker
from tests.stack.helpers import wait_for
from tests.stack.lingering import Lingering, Slow

QUEUE = "test-queue"


@pytest.fixture
async def client(home: Home) -> Client:
    return await connect(temporal_spec(), home)


async def test_sigterm_lets_running_work_end_within_the_grace(client: Client) -> None:
    async with make_worker("eval", client, queue=QUEUE, num_slots=1, workflows=[Lingering], activities=[]):
        assert await _stopped_while_lingering(client, timedelta(seconds=0.5), grace=10) == "done"


async def test_sigterm_cancels_what_does_not_end_within_the_grace(client: Client) -> None:
    async with make_worker("eval", client, queue=QUEUE, num_slots=1, workflows=[Lingering], activities=[]):
        assert await _stopped_while_lingering(client, timedelta(seconds=50), grace=0.2) == "cut short"


async def _stopped_while_lingering(client: Client, duration: timedelta, *, grace: float) -> str:
    """Send SIGTERM to a worker (this process) that has begun to linger; return how the activity ended."""
    handle = await client.start_workflow(
        Lingering.run, Slow(duration=duration), id=f"linger-{duration}", task_queue=QUEUE
    )
    begun = asyncio.Event()

    @activity.defn
    async def linger(work: Slow) -> str:
        begun.set()
        try:
            await asyncio.sleep(work.duration.total_seconds())
        except asyncio.CancelledError:
            return "cut short"
        return "done"

    running = asyncio.create_task(
        run_worker(
            "training",
            client,
            queue=QUEUE,
            num_slots=1,
            grace=timedelta(seconds=grace),
            workflows=[],
            activities=[linger],
        )
    )
    await asyncio.wait_for(begun.wait(), 20)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)
    return await handle.result()


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
