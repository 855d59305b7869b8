"""One attempt at a run's training, on a training worker."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from bertpar import faults
from bertpar.activities._job import run_with_heartbeats
from bertpar.activities._slot import slot_for_training
from bertpar.codec import from_json
from bertpar.events import ATTEMPT_STARTED, CHECKPOINT_SAVED, AttemptStarted, CheckpointSaved, TrainJob, TrainResult

_PASSING = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED)
"""How an outage looks like: worth waiting for."""


@activity.defn
async def train(job: TrainJob) -> TrainResult:
    """Train in a process of its own, in a slot; each durable checkpoint is signalled to the workflow in its order.

    When cancelled, the process is asked to leave in order.
    """
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None
    workflow = activity.client().get_workflow_handle(workflow_id)

    async def on_event(kind: str, value: Any) -> None:
        if kind == "checkpoint":
            await _signal_patiently(workflow, CHECKPOINT_SAVED, from_json(CheckpointSaved, json.dumps(value)))
            faults.reach("checkpoint.signalled")

    arrived = time.monotonic()
    async with slot_for_training(job.demand, job.attempt) as granted:
        began = time.monotonic()
        await tell_start(job, waited_seconds=began - arrived)
        result = await run_with_heartbeats("train", job, TrainResult, on_event, gpus=granted.gpus)
        return replace(result, train_seconds=time.monotonic() - began)


async def tell_start(job: TrainJob, waited_seconds: float = 0.0) -> None:
    """Tell the sweep that the attempt has a slot, before anything is done under its number."""
    sweep_id, _, index = job.run_id.rpartition("/")
    sweep = activity.client().get_workflow_handle(sweep_id)
    started_at = activity.info().started_time.timestamp() + waited_seconds
    started = AttemptStarted(run=int(index), attempt=job.attempt, started_at=started_at)
    await _signal_patiently(sweep, ATTEMPT_STARTED, started)


async def _signal_patiently(workflow: WorkflowHandle[Any, Any], name: str, payload: Any) -> None:
    """Signal through an outage of Temporal: training goes on meanwhile, its events wait with it."""
    while True:
        try:
            return await workflow.signal(name, payload)
        except RPCError as error:
            if error.status not in _PASSING:
                raise
            activity.logger.warning("%s waits for Temporal: %s", payload, error)
            await asyncio.sleep(1.0)
