"""What a real server says of who uses a store."""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from bertpar.events import PredictJob, TrainJob, TrainResult
from bertpar.states import InferenceInput, RunBatch
from bertpar.usage import ask_usage
from bertpar.workflows import CoordinatorWorkflow
from bertpar.workflows.inference import InferenceWorkflow
from tests.workflows.conftest import SNAPSHOT, Script, checkpoint, running_sweep, train_at_once, until


async def test_running_sweeps_and_predictions_are_in_use_and_ended_or_unknown_ones_are_not(client: Client) -> None:
    go_on = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        await go_on.wait()
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train)) as live, running_sweep(client, Script()) as ended:
        handle = await live.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(live.ref(0),), final=True))
        await until(lambda: len(live.script.train_jobs) == 1)
        await ended.run(ended.ref(0))
        job = PredictJob(
            store_root="/nowhere",
            spec_key="specs/0",
            snapshot=SNAPSHOT,
            checkpoint=checkpoint(live.script.train_jobs[0], 2),
            input_key="predictions/predict-a/input",
            output_key="predictions/predict-a/output",
        )
        predicting = await client.start_workflow(
            InferenceWorkflow.run,
            InferenceInput(job=job, heartbeat_timeout_seconds=2.0),
            id=f"{ended.sweep_id}/0/predict-a",
            task_queue="nobody-serves-this",
        )
        usage = await ask_usage(client, [live.sweep_id, ended.sweep_id, "of-another-temporal"])
        assert usage.sweeps[live.sweep_id] == "live"
        assert usage.sweeps[ended.sweep_id] == "ended"
        assert usage.sweeps["of-another-temporal"] == "unknown"
        assert usage.predicting_runs >= {f"{ended.sweep_id}/0"}
        assert usage.predictions >= {"predict-a"}
        assert live.sweep_id in usage.live_sweeps
        assert usage.why_busy(f"{ended.sweep_id}/0", take_unknown=False) == "a prediction with it is running"
        await predicting.terminate()
        go_on.set()
        await handle.result()
        assert (await ask_usage(client, [live.sweep_id])).sweeps[live.sweep_id] == "ended"
