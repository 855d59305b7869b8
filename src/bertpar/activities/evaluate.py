"""Evaluation and prediction with a checkpoint, on an evaluation worker."""

from __future__ import annotations

from dataclasses import replace

from temporalio import activity

from bertpar.activities._job import run_with_heartbeats
from bertpar.activities._slot import slot_for_evaluation
from bertpar.capacity import Grant
from bertpar.events import EvaluateJob, EvaluateResult, PredictJob, PredictResult
from bertpar.spec import Demand


@activity.defn
async def evaluate(job: EvaluateJob) -> EvaluateResult:
    """Score the checkpoint on the test split, and log metrics and artifacts to MLflow."""
    async with slot_for_evaluation(job.demand) as granted:
        job = replace(job, demand=_of(granted))
        return await run_with_heartbeats("evaluate", job, EvaluateResult, gpus=granted.gpus)


@activity.defn
async def predict(job: PredictJob) -> PredictResult:
    """Predict every line of the input bundle, and publish the output bundle."""
    async with slot_for_evaluation(job.demand) as granted:
        job = replace(job, demand=_of(granted))
        return await run_with_heartbeats("predict", job, PredictResult, gpus=granted.gpus)


def _of(granted: Grant) -> Demand:
    """Return the demand that what was granted meets: on GPUs, whatever threads there are."""
    return Demand(num_threads=granted.num_threads or None)
