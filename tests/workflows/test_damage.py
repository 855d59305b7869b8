"""Files damaged in the store: what the workflows have made again."""

from __future__ import annotations

from dataclasses import replace

from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar.events import EvaluateJob, EvaluateResult, SnapshotJob, SnapshotRef, TrainJob, TrainResult
from bertpar.mlflow_jobs import CloseRunJob
from tests.workflows.conftest import SNAPSHOT, Script, evaluate_at_once, running_sweep, train_at_once
from tests.workflows.test_outages import only_run


async def test_a_damaged_snapshot_is_made_again_and_the_run_goes_on(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        if job.attempt == 1:
            raise ApplicationError("train.arrow differs", type="SnapshotDamagedError", non_retryable=True)
        return await train_at_once(job)

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, state.attempt, len(script.snapshot_jobs)) == ("completed", 2, 2)


async def test_a_damaged_snapshot_whose_source_has_changed_fails_with_its_name(client: Client) -> None:
    made: list[SnapshotRef] = []

    async def make_snapshot(job: SnapshotJob) -> SnapshotRef:
        made.append(replace(SNAPSHOT, key=f"snapshots/{len(made)}"))
        return made[-1]

    async def train(job: TrainJob) -> TrainResult:
        raise ApplicationError("train.arrow differs", type="SnapshotDamagedError", non_retryable=True)

    script = Script(train=train, make_snapshot=make_snapshot)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, len(script.train_jobs)) == ("failed", 1)
    assert state.failure is not None
    assert "snapshots/0 is damaged and cannot be made again: its source has changed" in state.failure.message


async def test_a_best_checkpoint_that_is_found_damaged_at_evaluation_is_trained_again(client: Client) -> None:
    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        if job.checkpoint.attempt == 1:
            raise ApplicationError("model.safetensors differs", type="CheckpointDamagedError", non_retryable=True)
        return await evaluate_at_once(job)

    script = Script(evaluate=evaluate)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, state.attempt) == ("completed", 2)
    assert [job.attempt for job in script.train_jobs] == [1, 2]  # numbers are never used twice
    assert state.best is not None
    assert state.best.attempt == 2


async def test_what_is_found_damaged_when_mlflow_is_told_is_made_again(client: Client) -> None:
    """As a checkpoint may be that waited through a long outage."""
    closed: list[CloseRunJob] = []

    async def close_run(job: CloseRunJob) -> None:
        closed.append(job)
        if len(closed) == 1:
            raise ApplicationError("metric_rows.json differs", type="CorruptError", non_retryable=True)

    script = Script(close_run=close_run)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, state.attempt) == ("completed", 2)
    assert [job.attempt for job in script.train_jobs] == [1, 2]
    assert script.closed == {f"{sweep.sweep_id}/0": "FINISHED", sweep.sweep_id: "FINISHED"}


async def test_damage_again_and_again_ends_the_run(client: Client) -> None:
    async def close_run(job: CloseRunJob) -> None:
        if job.opening.parent_identity is not None:
            raise ApplicationError("metric_rows.json differs", type="CorruptError", non_retryable=True)

    script = Script(close_run=close_run)
    async with running_sweep(client, script) as sweep:
        state = only_run(await sweep.run(sweep.ref(0)))
    assert (state.status, len(script.train_jobs)) == ("failed", 4)
    assert state.failure is not None
    assert state.failure.message == "metric_rows.json differs"
