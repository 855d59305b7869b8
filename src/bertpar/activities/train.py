"""One attempt at a run's training, on a training worker."""

from __future__ import annotations

import json
from typing import Any

from temporalio import activity

from bertpar.activities._job import run_with_heartbeats
from bertpar.codec import from_json
from bertpar.events import CHECKPOINT_SAVED, CheckpointSaved, TrainJob, TrainResult


@activity.defn
async def train(job: TrainJob) -> TrainResult:
    """Train in a process of its own; each durable checkpoint is signalled to the workflow in its order."""
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None
    workflow = activity.client().get_workflow_handle(workflow_id)

    async def on_event(kind: str, value: Any) -> None:
        if kind == "checkpoint":
            await workflow.signal(CHECKPOINT_SAVED, from_json(CheckpointSaved, json.dumps(value)))

    return await run_with_heartbeats("train", job, TrainResult, on_event)
