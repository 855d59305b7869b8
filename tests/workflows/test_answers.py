"""Who looks at a sweep again and again asks its worker only when something has happened."""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from bertpar.answers import Answers
from bertpar.events import TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.states import RunBatch
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, at_rest, running_sweep, train_at_once


async def test_a_second_look_needs_no_worker_while_nothing_happens(client: Client) -> None:
    answers = Answers()
    async with running_sweep(client, Script()) as sweep:
        await sweep.run(sweep.ref(0), sweep.ref(1))
        seen = await observe(client, sweep.sweep_id, answers)
    async with asyncio.timeout(5):  # nobody is there any more whom one could ask
        assert await observe(client, sweep.sweep_id, answers) == seen


async def test_a_second_look_shows_what_has_happened_since_the_first(client: Client) -> None:
    train_wanted, answers = asyncio.Event(), Answers()

    async def train(job: TrainJob) -> TrainResult:
        await train_wanted.wait()
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train), heartbeat_timeout_seconds=60.0) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        await at_rest(handle, lambda status: status.runs[0].has_slot)
        (run,) = (await observe(client, sweep.sweep_id, answers)).runs
        assert (run.status, run.state.num_checkpoints) == ("training", 0)
        train_wanted.set()
        await handle.result()
        (run,) = (await observe(client, sweep.sweep_id, answers)).runs
        assert (run.status, run.state.num_checkpoints) == ("completed", 1)
