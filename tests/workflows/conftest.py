"""A real Temporal server, and activities of the real names whose behaviour each test scripts."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from bertpar.activities.train import tell_start, train
from bertpar.claims import Claimed, ClaimJob
from bertpar.events import (
    CHECKPOINT_SAVED,
    CheckpointRef,
    CheckpointSaved,
    EvaluateJob,
    EvaluateResult,
    PredictJob,
    PredictResult,
    SnapshotJob,
    SnapshotRef,
    TrainJob,
    TrainResult,
)
from bertpar.mlflow_jobs import CloseRunJob, MlflowRun, OpenRunJob, ReportJob
from bertpar.payloads import DATA_CONVERTER
from bertpar.slots import Slots
from bertpar.states import RunBatch, RunRef, SweepOptions, SweepState, SweepStatus, SweepSummary, tracking_queue
from bertpar.worker import make_worker
from bertpar.workflows import WORKFLOWS, CoordinatorWorkflow
from tests.specs import OPTIONS, run_ref
from tests.workflows.strict import sandbox

SNAPSHOT = SnapshotRef(
    key="snapshots/a",
    digest="d",
    task="classification",
    label_names=("no", "yes"),
    num_examples={"train": 4, "validation": 2, "test": 2},
    tokenizer_key="tokenizers/t",
)

REPLAYING = {
    "workflow_runner": sandbox(),
    "max_cached_workflows": 0,
    "max_concurrent_workflow_tasks": 1,  # of two for one workflow that is not kept, the SDK drops one
}
"""Options of a worker that keeps no workflow between its tasks, in the sandbox."""


async def start_server(*arguments: str) -> WorkflowEnvironment:
    """Start a server; `arguments` go to `temporal server start-dev`."""
    return await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
        dev_server_extra_args=arguments,
        data_converter=DATA_CONVERTER,
    )


SHORT_HISTORIES = ("--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60")
"""Arguments of a server on which a coordinator continues as new after a few runs."""


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[WorkflowEnvironment]:
    async with await start_server() as environment:
        yield environment


@pytest.fixture
def client(server: WorkflowEnvironment) -> Client:
    return server.client


def checkpoint(job: TrainJob, step: int, accuracy: float = 0.5) -> CheckpointRef:
    return CheckpointRef(
        key=f"runs/{job.run_id}/checkpoints/attempt-{job.attempt}/step-{step}",
        digest=f"digest-{step}",
        step=step,
        attempt=job.attempt,
        num_bytes=1,
        metrics={"val/accuracy": accuracy},
    )


def trained(job: TrainJob, last: CheckpointRef) -> TrainResult:
    return TrainResult(
        total_steps=last.step,
        stopped_early=False,
        best=last,
        last=last,
        metrics=last.metrics,
        resumed_from_step=job.resume_from[0].step if job.resume_from else 0,
        train_seconds=0.0,
    )


async def save(job: TrainJob, saved: CheckpointRef, pruned: tuple[str, ...] = ()) -> None:
    """Signal a checkpoint as the real training activity does."""
    workflow = activity.client().get_workflow_handle(activity.info().workflow_id)
    await workflow.signal(CHECKPOINT_SAVED, CheckpointSaved(checkpoint=saved, attempt=saved.attempt, pruned=pruned))


async def train_at_once(job: TrainJob) -> TrainResult:
    last = checkpoint(job, 10)
    await save(job, last)
    return trained(job, last)


async def evaluate_at_once(job: EvaluateJob) -> EvaluateResult:
    return EvaluateResult(key="e", digest="e", metrics={"test/accuracy": 0.75})


async def snapshot_at_once(job: SnapshotJob) -> SnapshotRef:
    return SNAPSHOT


async def nothing_is_there(job: ClaimJob) -> Claimed:
    return Claimed(run_key=f"key-{job.run_id}")


async def mlflow_answers(job: OpenRunJob | CloseRunJob | ReportJob) -> None:
    pass


@dataclass
class Script:
    """How the activities behave, and what they were asked to do."""

    train: Callable[[TrainJob], Awaitable[TrainResult]] = train_at_once
    evaluate: Callable[[EvaluateJob], Awaitable[EvaluateResult]] = evaluate_at_once
    make_snapshot: Callable[[SnapshotJob], Awaitable[SnapshotRef]] = snapshot_at_once
    claim_run: Callable[[ClaimJob], Awaitable[Claimed]] = nothing_is_there
    claim_jobs: list[ClaimJob] = field(default_factory=list)
    train_jobs: list[TrainJob] = field(default_factory=list)
    snapshot_jobs: list[SnapshotJob] = field(default_factory=list)
    open_run: Callable[[OpenRunJob], Awaitable[None]] = mlflow_answers
    close_run: Callable[[CloseRunJob], Awaitable[None]] = mlflow_answers
    make_report: Callable[[ReportJob], Awaitable[None]] = mlflow_answers
    opened: list[str] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    close_jobs: list[CloseRunJob] = field(default_factory=list)
    report_jobs: list[ReportJob] = field(default_factory=list)
    queues: dict[str, str] = field(default_factory=dict)

    def activities(self) -> dict[str, Callable[..., object]]:
        @activity.defn(name="train")
        async def train(job: TrainJob) -> TrainResult:
            self.queues["train"] = activity.info().task_queue
            await tell_start(job)
            self.train_jobs.append(job)
            return await self.train(job)

        @activity.defn(name="evaluate")
        async def evaluate(job: EvaluateJob) -> EvaluateResult:
            self.queues["evaluate"] = activity.info().task_queue
            return await self.evaluate(job)

        @activity.defn(name="make_snapshot")
        async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
            self.snapshot_jobs.append(job)
            return await self.make_snapshot(job)

        @activity.defn(name="claim_run")
        async def claim_run(job: ClaimJob) -> Claimed:
            self.claim_jobs.append(job)
            return await self.claim_run(job)

        @activity.defn(name="open_run")
        async def open_run(job: OpenRunJob) -> MlflowRun:
            self.queues["open_run"] = activity.info().task_queue
            await self.open_run(job)
            self.opened.append(job.identity)
            return MlflowRun(experiment_id="1", run_id=f"mlflow-{job.identity}")

        @activity.defn(name="close_run")
        async def close_run(job: CloseRunJob) -> MlflowRun:
            self.queues["close_run"] = activity.info().task_queue
            await self.close_run(job)
            self.close_jobs.append(job)
            self.closed[job.opening.identity] = job.status
            return MlflowRun(experiment_id="1", run_id=f"mlflow-{job.opening.identity}")

        @activity.defn(name="make_report")
        async def make_report(job: ReportJob) -> None:
            self.queues["make_report"] = activity.info().task_queue
            self.report_jobs.append(job)
            await self.make_report(job)

        @activity.defn(name="predict")
        async def predict(job: PredictJob) -> PredictResult:
            return PredictResult(key=job.output_key, num_examples=1)

        own = (train, evaluate, make_snapshot, claim_run, open_run, close_run, make_report, predict)
        return {a.__name__: a for a in own}

    @asynccontextmanager
    async def real_training(self) -> AsyncIterator[Callable[..., object]]:
        """Yield the real activity, with what is scripted in place of its process."""

        async def run(kind: str, job: TrainJob, *_: object, **__: object) -> TrainResult:
            self.train_jobs.append(job)
            return await self.train(job)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(import_module("bertpar.activities.train"), "run_with_heartbeats", run)
            yield train


@dataclass
class Sweep:
    """A sweep whose activities follow a script, on queues of its own."""

    client: Client
    script: Script
    sweep_id: str
    options: SweepOptions

    def ref(self, index: int, request: str = "one") -> RunRef:
        return run_ref(f"{self.sweep_id}/{index}", snapshot_request=request)

    async def start(self) -> WorkflowHandle[CoordinatorWorkflow, SweepSummary]:
        return await self.client.start_workflow(
            CoordinatorWorkflow.run,
            SweepState(sweep_id=self.sweep_id, name="test", options=self.options),
            id=self.sweep_id,
            task_queue=self.options.eval_queue,
        )

    async def run(self, *refs: RunRef) -> SweepStatus:
        handle = await self.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=refs, final=True))
        await handle.result()
        return await handle.query(CoordinatorWorkflow.status)


@asynccontextmanager
async def running_sweep(
    client: Client,
    script: Script,
    *,
    workflows_elsewhere: bool = False,
    kept: bool = False,
    num_slots: int = 8,
    training_slots: Slots | None = None,
    **options: Any,
) -> AsyncIterator[Sweep]:
    """Yield a sweep with workers for it.

    Workflows run in another process, or here, in the sandbox: there every task replays, unless workflows are to be kept
    as bertpar's workers keep them. With `training_slots` each training takes what it wants of those.
    """
    name = uuid.uuid4().hex[:8]
    queues = {"training_queue": f"training-{name}", "eval_queue": f"eval-{name}"}
    sweep_options = replace(OPTIONS, **{**queues, **options})
    activities = script.activities()
    scripted = activities.pop("train")
    tracking = [activities.pop(name) for name in ("open_run", "close_run", "make_report")]
    queue = sweep_options.eval_queue
    workflows = [] if workflows_elsewhere else WORKFLOWS
    replaying = {} if kept else REPLAYING
    make = partial(make_worker, num_slots=num_slots, grace=timedelta(0))
    async with (
        script.real_training() if training_slots else nullcontext(scripted) as training,
        make("eval", client, queue=queue, workflows=workflows, activities=list(activities.values()), **replaying),
        make("eval", client, queue=tracking_queue(queue), workflows=[], activities=tracking),
        make(
            "training",
            client,
            queue=sweep_options.training_queue,
            slots=training_slots,
            workflows=[],
            activities=[training],
        ),
    ):
        yield Sweep(client, script, f"sweep-{name}", sweep_options)


async def at_rest(handle: WorkflowHandle[CoordinatorWorkflow, SweepSummary], of: Callable[[SweepStatus], bool]) -> None:
    """Wait until the coordinator's status is so, and no workflow task of it is to be done.

    A query is answered with events that no workflow task has taken in yet: an update that came now would meet the state
    before them.
    """
    async with asyncio.timeout(30):
        while True:
            status = await handle.query(CoordinatorWorkflow.status)
            described = await handle.describe()
            if of(status) and not described.raw_description.HasField("pending_workflow_task"):
                return
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; fails the test when it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
