"""Runs are cancelled, dropped and retried, and MLflow is told how each ended."""

from __future__ import annotations

import asyncio

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar import steer
from bertpar.errors import RefusedError
from bertpar.events import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from bertpar.mlflow_jobs import CloseRunJob
from tests.workflows.conftest import checkpoint, evaluate_at_once, trained, until
from tests.workflows.live_sweep import begun, live


async def test_a_cancelled_run_leaves_a_checkpoint_and_its_sweep_completes_without_it(client: Client) -> None:
    async with live(client, 2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        await steer.cancel_run(client, f"{sweep.sweep_id}/0", print)
        cancelled = (await sweep.reaches("cancelled", "training")).runs[0]
        assert (cancelled.step, cancelled.cancelled_by_user, cancelled.order) == (15, True, None)
        status = await sweep.end()
    assert status.status == "completed"
    closed = sweep.sweep.script.closed
    assert closed == {f"{sweep.sweep_id}/0": "KILLED", f"{sweep.sweep_id}/1": "FINISHED", sweep.sweep_id: "FINISHED"}


async def test_a_training_that_ends_well_while_its_run_is_cancelled_is_not_evaluated(client: Client) -> None:
    async with live(client, 2) as sweep:

        async def end_instead(job: TrainJob) -> TrainResult:
            try:
                return await sweep.trainings.train(job)
            except ApplicationError:
                return trained(job, checkpoint(job, 100))

        sweep.sweep.script.train = end_instead
        await until(begun(sweep.trainings, 0, 1))
        await sweep.steer("cancel", 0)
        await sweep.reaches("cancelled", "training")
        assert "evaluate" not in sweep.sweep.script.queues
        assert (await sweep.end()).status == "completed"


async def test_a_paused_run_that_is_cancelled_is_closed_in_mlflow(client: Client) -> None:
    async with live(client, 2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused", "training")
        await sweep.steer("cancel", 0)
        await sweep.reaches("cancelled", "training")
        await sweep.end()
    assert sweep.sweep.script.closed[f"{sweep.sweep_id}/0"] == "KILLED"


async def test_a_run_is_cancelled_while_it_is_evaluated(client: Client) -> None:
    evaluating = asyncio.Event()

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        if job.run_id.endswith("/1"):
            return await evaluate_at_once(job)
        evaluating.set()
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.02)

    async with live(client, 2) as sweep:
        sweep.sweep.script.evaluate = evaluate
        sweep.trainings.may_end.add(0)
        await evaluating.wait()
        await sweep.steer("cancel", 0)
        await sweep.reaches("cancelled", "training")
        assert (await sweep.end()).status == "completed"


async def test_runs_are_dropped_by_their_values(client: Client) -> None:
    async with live(client, 3) as sweep:
        await until(begun(sweep.trainings, 0, 1, 2))
        with pytest.raises(RefusedError, match="no run of sweep .* has lr=7; there are: lr=0,1,2"):
            await steer.drop(client, sweep.sweep_id, ["lr=7"], print)
        assert (await steer.drop(client, sweep.sweep_id, ["lr=1.0,2"], print)).runs == (1, 2)
        await sweep.reaches("training", "cancelled", "cancelled")
        assert (await sweep.end()).status == "completed"


async def test_a_cancelled_sweep_closes_its_paused_runs_too(client: Client) -> None:
    async with live(client, 2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused", "training")
        await steer.cancel_sweep(client, sweep.sweep_id)
        await sweep.reaches("cancelled", "cancelled")
        async with asyncio.timeout(20):
            while (await sweep.status()).status == "running":
                await asyncio.sleep(0.05)
        with pytest.raises(RefusedError, match=r"has ended: cancelled\. .*run the command that started it again"):
            await sweep.steer("retry", 0)
    assert set(sweep.sweep.script.closed.values()) == {"KILLED"}
    assert len(sweep.sweep.script.closed) == 3


async def test_a_failed_run_is_retried_with_new_numbers_and_may_complete(client: Client) -> None:
    async with live(client, 2) as sweep:

        async def fail_once(job: TrainJob) -> TrainResult:
            if job.run_id.endswith("/0") and job.attempt == 1:
                raise ApplicationError("loss is nan", type="NotANumberError")
            return await sweep.trainings.train(job)

        sweep.sweep.script.train = fail_once
        sweep.trainings.may_end.add(0)
        await sweep.reaches("failed", "training")
        await sweep.steer("retry", 0)
        retried = (await sweep.reaches("completed", "training")).runs[0]
        assert (retried.failure, retried.attempt) == (None, 2)
        assert (await sweep.end()).status == "completed"
    assert sweep.sweep.script.closed[f"{sweep.sweep_id}/0"] == "FINISHED"


async def test_a_cancelled_run_is_retried_from_its_checkpoint_while_mlflow_is_being_told_of_its_end(
    client: Client,
) -> None:
    mlflow_answers = asyncio.Event()

    async def close_run(job: CloseRunJob) -> None:
        while job.status == "KILLED" and not mlflow_answers.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.02)

    async with live(client, 2, max_parallel=1) as sweep:
        sweep.sweep.script.close_run = close_run
        await until(begun(sweep.trainings, 0))
        await sweep.steer("cancel", 0)
        await until(begun(sweep.trainings, 1))
        await sweep.steer("retry", 0)
        status = await sweep.end()
        mlflow_answers.set()
    assert [(s.status, s.cancelled_by_user) for s in status.runs] == [("completed", False)] * 2
    assert sweep.trainings.numbers == [(0, 1), (1, 1), (0, 2)]
    assert sweep.sweep.script.closed[f"{sweep.sweep_id}/0"] == "FINISHED"
