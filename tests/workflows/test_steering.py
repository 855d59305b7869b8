"""Commands on a live sweep that meet each other, its end, or a worker that is lost; and more runs for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from bertpar import steer
from bertpar.claims import Claimed, ClaimJob
from bertpar.errors import NotFoundError, RefusedError
from bertpar.events import TrainJob, TrainResult
from bertpar.states import Steered
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import nothing_is_there, until
from tests.workflows.live_sweep import begun, live
from tests.workflows.test_lost_worker import start_worker


async def test_a_closed_sweep_that_runs_is_extended_and_numbers_continue(client: Client) -> None:
    async with live(client, 2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        handle = client.get_workflow_handle(sweep.sweep_id)
        new = replace(sweep.sweep.ref(0), spec_key="specs/new", swept={"lr": "5"})
        first, second = await asyncio.gather(
            handle.execute_update(CoordinatorWorkflow.extend, (new,), result_type=Steered),
            handle.execute_update(
                CoordinatorWorkflow.extend, (replace(new, spec_key="specs/newer"),), result_type=Steered
            ),
        )
        assert sorted(first.runs + second.runs) == [2, 3]
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(CoordinatorWorkflow.extend, (new,), result_type=Steered)
        assert "lr=5 is in the sweep already" in str(refused.value.cause)
        status = await sweep.end()
    assert [r.status for r in status.runs] == ["completed"] * 4
    assert [r.run.run_id for r in status.runs] == [f"{sweep.sweep_id}/{index}" for index in range(4)]


@pytest.mark.parametrize("commands", [("pause", "cancel"), ("cancel", "pause"), ("pause", "priority")])
async def test_of_two_contradictory_commands_at_once_one_is_refused_with_the_reason(
    client: Client, commands: tuple[str, str]
) -> None:
    async with live(client, 1) as sweep:
        await until(begun(sweep.trainings, 0))
        answers = await asyncio.gather(*(sweep.steer(kind, 0) for kind in commands), return_exceptions=True)
        refused = [str(answer) for answer in answers if isinstance(answer, RefusedError)]
        if commands != ("pause", "priority") or refused:  # a priority first, then a pause, is no contradiction
            (reason,) = refused
            assert f"run {sweep.sweep_id}/0 is being" in reason
        if "cancel" not in commands or (await sweep.state(0)).order == "pause":
            await sweep.reaches("paused")
            await sweep.steer("resume", 0)
        await sweep.end()


async def test_a_command_on_a_sweep_that_is_not_there_or_has_ended_says_so(client: Client) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        await steer.pause(client, "nope", print)
    async with live(client, 1) as sweep:
        await sweep.end()
        for name in (sweep.sweep_id, f"{sweep.sweep_id}/0"):
            with pytest.raises(RefusedError, match="has ended: completed"):
                await steer.pause(client, name, print)
        assert await steer.cancel_sweep(client, sweep.sweep_id) is False
        with pytest.raises(NotFoundError, match="is a part of a sweep"):
            await steer.cancel_sweep(client, f"{sweep.sweep_id}/0/train")
    execution = await client.get_workflow_handle(f"{sweep.sweep_id}/0/train").describe()
    assert execution.status == WorkflowExecutionStatus.COMPLETED


async def test_a_command_outlives_the_worker_that_took_it(client: Client) -> None:
    may_leave = asyncio.Event()
    async with live(client, 1, workflows_elsewhere=True, heartbeat_timeout_seconds=60.0, starts=False) as sweep:

        async def leave_late(job: TrainJob) -> TrainResult:
            try:
                return await sweep.trainings.train(job)
            except ApplicationError:
                await may_leave.wait()
                raise

        sweep.sweep.script.train = leave_late
        worker = start_worker(sweep.sweep)
        try:
            await sweep.begin(1)
            await until(begun(sweep.trainings, 0))
            await sweep.steer("pause", 0)
            worker.kill()
            worker.communicate()
            may_leave.set()
            worker = await asyncio.to_thread(start_worker, sweep.sweep)
            await sweep.reaches("paused")
            await sweep.steer("resume", 0)
            assert (await sweep.end()).status == "completed"
        finally:
            worker.kill()
            worker.communicate()
    assert sweep.trainings.numbers == [(0, 1), (0, 2)]


@pytest.mark.parametrize(("command", "becomes"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_command_that_a_new_worker_hears_together_with_the_end_of_preparations_is_carried_out(
    client: Client, command: str, becomes: str
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def claim_run(job: ClaimJob) -> Claimed:
        asked.set()
        while not may_answer.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.02)
        return await nothing_is_there(job)

    async with live(client, 1, workflows_elsewhere=True, starts=False) as sweep:
        sweep.sweep.script.claim_run = claim_run
        handle = client.get_workflow_handle(sweep.sweep_id)
        worker = start_worker(sweep.sweep)
        try:
            await sweep.begin(1)
            await asked.wait()
            await sweep.reaches("preparing")
            worker.kill()
            worker.communicate()
            may_answer.set()
            async with asyncio.timeout(20):
                while not await _has_answered(handle, "claim_run"):
                    await asyncio.sleep(0.05)
            steered = asyncio.ensure_future(sweep.steer(command, 0))  # it is there long before the next worker is
            worker = await asyncio.to_thread(start_worker, sweep.sweep)
            await steered
            assert (await sweep.reaches(becomes)).runs[0].order is None
            assert sweep.trainings.started == []
            if command == "pause":
                await sweep.steer("resume", 0)
            await sweep.end()
        finally:
            worker.kill()
            worker.communicate()


async def _has_answered(handle: WorkflowHandle[Any, Any], activity_type: str) -> bool:
    scheduled, completed = set(), set()
    async for event in handle.fetch_history_events():
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity_type:
            scheduled.add(event.event_id)
        completed.add(event.activity_task_completed_event_attributes.scheduled_event_id)
    return bool(scheduled & completed)
