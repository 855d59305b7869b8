"""The workflows' worker is killed while things happen and clients ask: nothing about the history may depend on it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from bertpar.claims import Claimed, ClaimJob
from bertpar.events import SnapshotJob, SnapshotRef
from bertpar.states import RunBatch
from bertpar.workflows import WORKFLOWS, CoordinatorWorkflow
from tests.workflows.conftest import SNAPSHOT, Script, Sweep, at_rest, nothing_is_there, running_sweep, until
from tests.workflows.strict import sandbox


def start_worker(sweep: Sweep) -> subprocess.Popen[str]:
    address = sweep.client.service_client.config.target_host
    command = [sys.executable, "-m", "tests.workflows.workflow_worker", address, sweep.options.eval_queue]
    worker = subprocess.Popen(command, stdout=-1, text=True, cwd=Path(__file__).parents[2])
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def completions(history: WorkflowHistory, activity: str) -> list[int]:
    """Return the ids of the events with which activities of this name have ended."""
    names = {
        event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events
    }
    ended = (e for e in history.events if e.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
    return [
        event.event_id
        for event in ended
        if names[event.activity_task_completed_event_attributes.scheduled_event_id] == activity
    ]


async def test_a_sweep_that_is_asked_between_two_events_after_a_lost_worker_still_replays(client: Client) -> None:
    """For some seconds Temporal believes in a lost worker's own queue: a query and the sweep's next task wait there.

    The query, which is older, reaches the new worker first, with the event that came meanwhile: the second run's data
    are there. A worker that kept the sweep would claim that run, and then start the training of the first, whose claim
    is answered next. A replay, for which both come at once, does so in the other order.
    """
    data_wanted, claim_wanted = asyncio.Event(), asyncio.Event()

    async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
        if job.spec_key == "specs/1":
            await data_wanted.wait()
        return SNAPSHOT

    async def claim_run(job: ClaimJob) -> Claimed:
        if job.spec_key == "specs/0":
            await claim_wanted.wait()
        return await nothing_is_there(job)

    script = Script(make_snapshot=make_snapshot, claim_run=claim_run)
    async with running_sweep(client, script, workflows_elsewhere=True) as sweep:
        worker = start_worker(sweep)
        try:
            handle = await sweep.start()
            runs = (sweep.ref(0), sweep.ref(1, request="other"))
            await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
            await until(lambda: len(script.claim_jobs) == 1 and len(script.snapshot_jobs) == 2)
            await at_rest(handle, lambda status: True)
            worker.kill()
            worker.communicate()
            asking = asyncio.create_task(handle.query(CoordinatorWorkflow.status))
            worker = await asyncio.to_thread(start_worker, sweep)
            await asyncio.sleep(1.0)  # so much older than the sweep's task is the query
            data_wanted.set()
            await asking
            claim_wanted.set()
            async with asyncio.timeout(60):
                assert (await handle.result()).status == "completed"
            history = await handle.fetch_history()
        finally:
            worker.kill()
            worker.communicate()
    data_there, claim_answered = completions(history, "make_snapshot")[1], completions(history, "claim_run")[0]
    between = {event.event_type for event in history.events[data_there:claim_answered]}
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED not in between, "a task began between them: nothing was tried"
    replayer = Replayer(workflows=WORKFLOWS, data_converter=client.data_converter, workflow_runner=sandbox())
    await replayer.replay_workflow(history)
