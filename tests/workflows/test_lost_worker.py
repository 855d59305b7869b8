"""The workflows' worker is killed while things happen and clients ask: nothing about the history may depend on it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Replayer

from bertpar.events import SnapshotJob, SnapshotRef, TrainJob, TrainResult
from bertpar.states import RunBatch
from bertpar.worker import sandbox
from bertpar.workflows import WORKFLOWS, CoordinatorWorkflow
from tests.workflows.conftest import SNAPSHOT, Script, Sweep, running_sweep, train_at_once, until


def start_worker(sweep: Sweep) -> subprocess.Popen[str]:
    address = sweep.client.service_client.config.target_host
    command = [sys.executable, "-m", "tests.workflows.workflow_worker", address, sweep.options.eval_queue]
    worker = subprocess.Popen(command, stdout=-1, text=True, cwd=Path(__file__).parents[2])
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


async def test_a_sweep_that_is_asked_between_two_events_after_a_lost_worker_still_replays(client: Client) -> None:
    """The times follow from Temporal's: for ten seconds it believes in a lost worker's own queue.

    A query from before the first event waits for the lost worker, and reaches the new one after that event. A worker
    that kept the workflow would have reacted to this event alone; a replay sees it together with the second.
    """
    snapshot_wanted, train_wanted = asyncio.Event(), asyncio.Event()

    async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
        if job.spec_key == "specs/1":
            await snapshot_wanted.wait()
        return SNAPSHOT

    async def train(job: TrainJob) -> TrainResult:
        await train_wanted.wait()
        return await train_at_once(job)

    async def ask_again_and_again() -> None:
        while True:
            with suppress(RPCError):  # nobody can answer for a while
                await handle.query(CoordinatorWorkflow.status)
            await asyncio.sleep(0.2)

    script = Script(train=train, make_snapshot=make_snapshot)
    async with running_sweep(client, script, heartbeat_timeout_seconds=60.0, workflows_elsewhere=True) as sweep:
        worker = start_worker(sweep)
        try:
            handle = await sweep.start()
            runs = (sweep.ref(0), sweep.ref(1, request="other"))
            await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
            await until(lambda: len(script.train_jobs) == 1)
            worker.kill()
            worker.communicate()
            asking = asyncio.create_task(ask_again_and_again())
            starting = asyncio.create_task(asyncio.to_thread(start_worker, sweep))
            await asyncio.sleep(3)
            train_wanted.set()
            await asyncio.sleep(3.5)
            snapshot_wanted.set()
            worker = await starting
            async with asyncio.timeout(60):
                assert (await handle.result()).status == "completed"
            asking.cancel()
            history = await handle.fetch_history()
        finally:
            worker.kill()
            worker.communicate()
    replayer = Replayer(workflows=WORKFLOWS, data_converter=client.data_converter, workflow_runner=sandbox())
    await replayer.replay_workflow(history)
