"""A sweep whose activities compute nothing, but tell its workflows what the real ones tell them, in as many bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256

from temporalio import activity
from temporalio.client import Client

from bertpar.activities.train import tell_start
from bertpar.capacity import capacity_of
from bertpar.claims import Claimed, ClaimJob
from bertpar.events import (
    CHECKPOINT_SAVED,
    CheckpointRef,
    CheckpointSaved,
    Code,
    EvaluateJob,
    EvaluateResult,
    SnapshotJob,
    SnapshotRef,
    TrainJob,
    TrainResult,
)
from bertpar.mlflow_jobs import CloseRunJob, MlflowRun, OpenRunJob, ReportJob
from bertpar.slots import Slots
from bertpar.spec import ResumeSpec, TrackingSpec
from bertpar.states import RunRef, SweepOptions, SweepSummary, tracking_queue
from bertpar.submit import submit_batch
from bertpar.worker import make_worker
from bertpar.workflows import WORKFLOWS, CoordinatorWorkflow

NUM_SLOTS = 100
"""Activities at once, of each worker: what Temporal's SDK has by default."""

_EVAL_QUEUE, _TRAINING_QUEUE = "eval", "training"
_VALIDATION = ("val/accuracy", "val/f1_macro", "val/loss", "val/mcc")
_TEST = tuple(f"test/{name}{end}" for name in ("accuracy", "f1_macro", "loss", "mcc") for end in ("", "_high", "_low"))


def _digest(*parts: object) -> str:
    """Return a digest that, like those of real results, nothing can compress."""
    return f"sha256:{sha256(repr(parts).encode()).hexdigest()}"


def _metrics(names: tuple[str, ...], run_id: str) -> dict[str, float]:
    return {name: int(_digest(name, run_id)[-13:], 16) / 16**13 for name in names}


OPTIONS = SweepOptions(
    store_root="/nowhere",
    tracking=TrackingSpec(uri="sqlite://", experiment="orchestration"),
    training_queue=_TRAINING_QUEUE,
    eval_queue=_EVAL_QUEUE,
    heartbeat_timeout_seconds=20.0,
    max_attempts=3,
    max_parallel=None,
    resume=ResumeSpec(allow_inexact=False, nan_lr_factor=None),
    temporal_ui=None,
    code=Code(digest=_digest("code"), versions={"torch": "2.13.0", "transformers": "5.23.0"}),
)


@activity.defn(name="make_snapshot")
async def _make_snapshot(job: SnapshotJob) -> SnapshotRef:
    return SnapshotRef(
        key=f"snapshots/{_digest('snapshot')}",
        digest=_digest("snapshot's manifest"),
        task="classification",
        label_names=("no", "yes"),
        num_examples={"train": 8, "validation": 4, "test": 4},
        tokenizer_key=f"tokenizers/{_digest('tokenizer')}",
    )


@activity.defn(name="claim_run")
async def _claim_run(job: ClaimJob) -> Claimed:
    return Claimed(run_key=_digest("key", job.run_id))


@activity.defn(name="train")
async def _train(job: TrainJob) -> TrainResult:
    """Tell of the start and of one checkpoint, as the shortest training does."""
    await tell_start(job)
    checkpoint = CheckpointRef(
        key=f"runs/{job.run_id}/checkpoints/attempt-{job.attempt}/step-1",
        digest=_digest("checkpoint", job.run_id),
        step=1,
        attempt=job.attempt,
        num_bytes=1,
        metrics=_metrics(_VALIDATION, job.run_id),
    )
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None
    saved = CheckpointSaved(checkpoint=checkpoint, attempt=job.attempt)
    await activity.client().get_workflow_handle(workflow_id).signal(CHECKPOINT_SAVED, saved)
    return TrainResult(
        total_steps=1,
        stopped_early=False,
        best=checkpoint,
        last=checkpoint,
        metrics=checkpoint.metrics,
        resumed_from_step=0,
        train_seconds=0.0,
    )


@activity.defn(name="evaluate")
async def _evaluate(job: EvaluateJob) -> EvaluateResult:
    return EvaluateResult(
        key=f"runs/{job.run_id}/evaluations/{_digest('evaluation', job.run_id)}",
        digest=_digest("evaluation's manifest", job.run_id),
        metrics=_metrics(_TEST, job.run_id),
    )


@activity.defn(name="open_run")
async def _open_run(job: OpenRunJob) -> MlflowRun:
    return MlflowRun(experiment_id="1", run_id=_digest(job.identity)[-32:])


@activity.defn(name="close_run")
async def _close_run(job: CloseRunJob) -> MlflowRun:
    return MlflowRun(experiment_id="1", run_id=_digest(job.opening.identity)[-32:])


@activity.defn(name="make_report")
async def _make_report(job: ReportJob) -> None:
    pass


@asynccontextmanager
async def serving(client: Client) -> AsyncIterator[None]:
    """Serve a sweep's queues with bertpar's own workers."""
    slots = Slots(capacity_of(NUM_SLOTS, NUM_SLOTS))
    make = partial(make_worker, client=client, num_slots=NUM_SLOTS, grace=timedelta(0))
    evaluation = [_make_snapshot, _claim_run, _evaluate]
    tracking = [_open_run, _close_run, _make_report]
    async with (
        make("eval", queue=_EVAL_QUEUE, workflows=WORKFLOWS, activities=evaluation),
        make("eval", queue=tracking_queue(_EVAL_QUEUE), workflows=[], activities=tracking),
        make("training", queue=_TRAINING_QUEUE, workflows=[], activities=[_train], slots=slots),
    ):
        yield


async def run_sweep(client: Client, sweep_id: str, num_runs: int) -> SweepSummary:
    """Submit a sweep as `train.py` does, and return how it went."""
    refs = [
        RunRef(
            run_id=f"{sweep_id}/{index}",
            index=index,
            overrides=(f"seed={index}",),
            swept={"seed": str(index)},
            spec_key=f"specs/{_digest('spec', index)}",
            snapshot_request=_digest("request"),
            objective="val/accuracy",
            mode="max",
            provenance=f"provenance/{_digest('provenance')}",
        )
        for index in range(num_runs)
    ]
    await submit_batch(client, sweep_id, "orchestration", OPTIONS, refs, final=True, say=print)
    return await client.get_workflow_handle_for(CoordinatorWorkflow.run, sweep_id).result()
