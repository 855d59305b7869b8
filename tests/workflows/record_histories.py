"""Records the histories that test_histories.py replays: `python -m tests.workflows.record_histories`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bertpar.events import (
    CHECKPOINT_SAVED,
    CheckpointSaved,
    EvaluateJob,
    EvaluateResult,
    PredictJob,
    Progress,
    TrainJob,
    TrainResult,
)
from bertpar.states import Command, InferenceInput, RunBatch
from bertpar.workflows import CoordinatorWorkflow, InferenceWorkflow
from tests.workflows.conftest import (
    SNAPSHOT,
    Script,
    checkpoint,
    evaluate_at_once,
    running_sweep,
    save,
    start_server,
    train_at_once,
    trained,
    until,
)

HISTORIES = Path(__file__).parents[1] / "histories"


async def main() -> None:
    async with await start_server() as server:
        await _record_mixed(server.client)
        await _record_cancelled(server.client)
        await _record_lost(server.client)
        await _record_paused(server.client)
        await _record_out_of_budget(server.client)


async def _record_mixed(client: Client) -> None:
    """A sweep with a resumed, a failed and a plain run; and a prediction."""

    async def train(job: TrainJob) -> TrainResult:
        if job.run_id.endswith("/0") and job.attempt == 1:
            await save(job, checkpoint(job, 5))
            raise ApplicationError("killed", type="ProcessDiedError")
        if job.run_id.endswith("/1"):
            raise ApplicationError("loss is nan", type="NotANumberError")
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train)) as sweep:
        await sweep.run(sweep.ref(0), sweep.ref(1), sweep.ref(2, request="other"))
        await _save(client, sweep.sweep_id, "coordinator-one_failed")
        await _save(client, f"{sweep.sweep_id}/0/train", "training-resumed")
        await _save(client, f"{sweep.sweep_id}/1/train", "training-failed")
        await _save(client, f"{sweep.sweep_id}/2/eval", "evaluation")
        job = PredictJob(
            store_root="/nowhere",
            spec_key="specs/0",
            snapshot=SNAPSHOT,
            checkpoint=checkpoint(TrainJob(**_any_train_job(sweep.sweep_id)), 5),
            input_key="predictions/p/input",
            output_key="predictions/p/output",
        )
        await client.execute_workflow(
            InferenceWorkflow.run,
            InferenceInput(job=job, heartbeat_timeout_seconds=10),
            id=f"{sweep.sweep_id}/predict",
            task_queue=sweep.options.eval_queue,
        )
        await _save(client, f"{sweep.sweep_id}/predict", "inference")


async def _record_cancelled(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.1)
        return trained(job, checkpoint(job, 1))

    script = Script(train=train)
    async with running_sweep(client, script, max_parallel=1) as sweep:
        handle = await sweep.start()
        runs = (sweep.ref(0), sweep.ref(1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await until(lambda: bool(script.train_jobs))
        await handle.cancel()
        try:
            await handle.result()
        except WorkflowFailureError:
            await _save(client, sweep.sweep_id, "coordinator-cancelled")


async def _record_lost(client: Client) -> None:
    """A run that lost its worker at step 7, with a checkpoint of step 6 unsaid; then its memory ran out at step 9.

    Its evaluation failed once.
    """

    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            await save(job, checkpoint(job, 5))
            activity.heartbeat(Progress(attempt=1, phase="training", step=7, total_steps=10))
            await asyncio.Event().wait()
        unsaid = checkpoint(replace(job, attempt=1), 6)
        workflow = activity.client().get_workflow_handle(activity.info().workflow_id)
        await workflow.signal(CHECKPOINT_SAVED, CheckpointSaved(checkpoint=unsaid, attempt=job.attempt))
        if job.attempt == 2:
            raise ApplicationError("out of memory", None, 9, type="OutOfMemoryError")
        return replace(await train_at_once(job), resumed_from_step=6)

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        if activity.info().attempt == 1:
            raise ApplicationError("No space left on device", type="StoreError")
        return await evaluate_at_once(job)

    async with running_sweep(client, Script(train=train, evaluate=evaluate)) as sweep:
        await sweep.run(sweep.ref(0))
        await _save(client, f"{sweep.sweep_id}/0/train", "training-lost")
        await _save(client, f"{sweep.sweep_id}/0/eval", "evaluation-retried")


async def _record_paused(client: Client) -> None:
    """A sweep of two, of which one run is paused at step 5, resumed, and completes."""
    is_paused = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        if job.run_id.endswith("/1"):
            await is_paused.wait()
            return await train_at_once(job)
        try:
            while job.attempt == 1:
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await save(job, checkpoint(job, 5))
            raise ApplicationError("asked to stop", None, 6, type="PreemptedError") from None
        return await train_at_once(job)

    script = Script(train=train)
    async with running_sweep(client, script, heartbeat_timeout_seconds=60.0) as sweep:
        handle = await sweep.start()
        runs = (sweep.ref(0), sweep.ref(1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await until(lambda: len(script.train_jobs) == 2)
        await handle.execute_update(CoordinatorWorkflow.steer, Command(kind="pause", run=0))
        async with asyncio.timeout(20):
            while (await handle.query(CoordinatorWorkflow.status)).runs[0].status != "paused":
                await asyncio.sleep(0.05)
        await _save(client, f"{sweep.sweep_id}/0/train", "training-left")
        is_paused.set()
        await handle.execute_update(CoordinatorWorkflow.steer, Command(kind="resume", run=0))
        await handle.result()
        await _save(client, sweep.sweep_id, "coordinator-paused")


async def _record_out_of_budget(client: Client) -> None:
    """A sweep of two side by side and a third in the queue, stopped after two seconds of compute time."""

    async def train(job: TrainJob) -> TrainResult:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await save(job, checkpoint(job, 5))
            raise ApplicationError("asked to stop", None, 6, 2.0, type="PreemptedError") from None
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train), max_parallel=2, budget_hours=2 / 3600) as sweep:
        await sweep.run(sweep.ref(0), sweep.ref(1), sweep.ref(2))
        await _save(client, sweep.sweep_id, "coordinator-out_of_budget")
        await _save(client, f"{sweep.sweep_id}/0/train", "training-out_of_budget")


def _any_train_job(sweep_id: str) -> dict[str, object]:
    from bertpar.spec import TrackingSpec

    return {
        "store_root": "/nowhere",
        "run_id": f"{sweep_id}/0",
        "spec_key": "specs/0",
        "snapshot": SNAPSHOT,
        "attempt": 1,
        "resume_from": (),
        "tracking": TrackingSpec(uri="sqlite://", experiment="test"),
    }


async def _save(client: Client, workflow_id: str, name: str) -> None:
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    HISTORIES.mkdir(exist_ok=True)
    events = _without_machine(json.loads(history.to_json()))
    (HISTORIES / f"{name}.json").write_text(json.dumps(events, indent=1), encoding="utf-8")
    print(f"{name}: {len(history.events)} events")


def _without_machine(value: Any) -> Any:
    """Drop what tells of the recording machine and changes nothing at replay: stack traces, host names."""
    if isinstance(value, list):
        return [_without_machine(item) for item in value]
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in ("stackTrace", "identity")}
        return {key: _without_machine(item) for key, item in kept.items()}
    return value


if __name__ == "__main__":
    asyncio.run(main())
