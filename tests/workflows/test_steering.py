"""Commands on a live sweep: each against real workflows whose trainings can be told to leave, as real ones can."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from bertpar import steer
from bertpar.claims import Claimed, ClaimJob
from bertpar.errors import NotFoundError, RefusedError
from bertpar.events import AttemptStarted, CloseRunJob, EvaluateJob, EvaluateResult, TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.payloads import DATA_CONVERTER
from bertpar.states import Command, RunBatch, RunState, Steered, SweepStatus
from bertpar.why import explain_state
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import (
    Script,
    Sweep,
    at_rest,
    checkpoint,
    evaluate_at_once,
    nothing_is_there,
    running_sweep,
    save,
    trained,
    until,
)
from tests.workflows.test_lost_worker import start_worker


@dataclass
class Trainings:
    """Trainings that go on until a test lets them end; told to leave, they make a checkpoint, as real ones do."""

    may_end: set[int] = field(default_factory=set)
    """Indices of the runs whose trainings may end."""
    all_may_end: bool = False
    running: set[int] = field(default_factory=set)
    started: list[int] = field(default_factory=list)
    numbers: list[tuple[int, int]] = field(default_factory=list)
    """Run and number of every attempt that began."""

    async def train(self, job: TrainJob) -> TrainResult:
        index = int(job.run_id.rpartition("/")[2])
        self.running.add(index)
        self.started.append(index)
        self.numbers.append((index, job.attempt))
        try:
            while not (self.all_may_end or index in self.may_end):
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await save(job, checkpoint(job, job.attempt * 10 + 5))
            raise ApplicationError("left in order", None, job.attempt * 10 + 6, type="PreemptedError") from None
        finally:
            self.running.discard(index)
        return trained(job, checkpoint(job, 100))


@dataclass
class Live:
    """A sweep on its way."""

    sweep: Sweep
    trainings: Trainings
    client: Client

    @property
    def sweep_id(self) -> str:
        return self.sweep.sweep_id

    async def status(self) -> SweepStatus:
        return await self.client.get_workflow_handle(self.sweep_id).query(CoordinatorWorkflow.status)

    async def state(self, index: int) -> RunState:
        return (await self.status()).runs[index]

    async def reaches(self, *statuses: str) -> SweepStatus:
        """Wait until the runs have these states, also for the next command, and return the sweep's."""
        handle = self.client.get_workflow_handle_for(CoordinatorWorkflow.run, self.sweep_id)
        await at_rest(handle, lambda status: [state.status for state in status.runs] == list(statuses))
        return await self.status()

    async def steer(self, kind: object, run: int | None = None, **more: object) -> Steered:
        command = Command(kind=kind, run=run, **more)  # type: ignore[arg-type]
        return await steer.steer(self.client, self.sweep_id, command, print)

    async def begin(self, num_runs: int) -> None:
        handle = await self.sweep.start()
        runs = tuple(self.sweep.ref(index) for index in range(num_runs))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))

    async def end(self) -> SweepStatus:
        """Let everything end."""
        self.trainings.all_may_end = True
        await self.client.get_workflow_handle(self.sweep_id).result()
        return await self.status()


@asynccontextmanager
async def live(client: Client, num_runs: int, *, starts: bool = True, **options: object) -> AsyncIterator[Live]:
    trainings = Trainings()
    script = Script(train=trainings.train)
    async with running_sweep(client, script, **options) as sweep:  # type: ignore[arg-type]
        alive = Live(sweep, trainings, client)
        if starts:
            await alive.begin(num_runs)
        yield alive


def begun(trainings: Trainings, *indices: int) -> Callable[[], bool]:
    return lambda: trainings.running == set(indices)


# --- pause and resume -------------------------------------------------------------------------------------


async def test_a_paused_run_leaves_its_slot_with_a_checkpoint_and_goes_on_when_resumed(client: Client) -> None:
    async with live(client, 2, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await until(begun(sweep.trainings, 1))  # its slot is free
        paused = (await sweep.reaches("paused", "training")).runs[0]
        assert (paused.step, paused.num_checkpoints, paused.attempt, paused.order) == (15, 1, 1, None)
        sweep.trainings.may_end.add(1)
        await sweep.reaches("paused", "completed")  # and the sweep waits for it
        await sweep.steer("resume", 0)
        await until(begun(sweep.trainings, 0))
        status = await sweep.end()
        record = await explain_state(client, status.runs[0])
    assert status.status == "completed"
    assert sweep.trainings.numbers == [(0, 1), (1, 1), (0, 2)]
    assert [(a.number, a.outcome, a.reached_step) for a in record.attempts] == [
        (1, "failed", 15),
        (2, "completed", 100),
    ]
    assert sweep.sweep.script.closed[f"{sweep.sweep_id}/0"] == "FINISHED"


async def test_a_paused_sweep_starts_nothing_and_goes_on_when_resumed(client: Client) -> None:
    async with live(client, 3, max_parallel=2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        assert (await sweep.steer("pause")).runs == (0, 1)
        status = await sweep.reaches("paused", "paused", "queued")
        assert status.paused == "a user has paused it"
        view = await observe(client, sweep.sweep_id)
        assert [run.status for run in view.runs] == ["paused", "paused", "queued"]
        assert sorted(sweep.trainings.started) == [0, 1]
        await sweep.steer("resume")
        assert (await sweep.end()).status == "completed"
    assert sorted(sweep.trainings.numbers) == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]


async def test_a_training_that_waits_for_a_slot_is_paused_without_using_a_number(client: Client) -> None:
    async with live(client, 2, num_slots=1) as sweep:
        await sweep.reaches("training", "training")
        await until(lambda: len(sweep.trainings.running) == 1)
        (holder,) = sweep.trainings.running
        waiting = 1 - holder
        await sweep.steer("pause", waiting)
        await sweep.reaches(*("paused" if index == waiting else "training" for index in range(2)))
        await sweep.steer("resume", waiting)
        await sweep.end()
    assert sorted(sweep.trainings.numbers) == [(0, 1), (1, 1)]


async def test_a_training_that_ends_while_it_is_to_pause_is_done(client: Client) -> None:
    async with live(client, 1) as sweep:
        await until(begun(sweep.trainings, 0))
        ended = sweep.trainings.train

        async def end_instead(job: TrainJob) -> TrainResult:
            try:
                return await ended(job)
            except ApplicationError:
                return trained(job, checkpoint(job, 100))

        sweep.sweep.script.train = end_instead
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        state = (await sweep.reaches("completed")).runs[0]
        await client.get_workflow_handle(sweep.sweep_id).result()
    assert (state.order, state.attempt) == (None, 2)


async def test_a_training_whose_data_are_damaged_while_it_is_to_pause_is_paused(client: Client) -> None:
    async with live(client, 1) as sweep:

        async def find_damage(job: TrainJob) -> TrainResult:
            try:
                return await sweep.trainings.train(job)
            except ApplicationError:
                raise ApplicationError("damaged", type="SnapshotDamagedError") from None

        sweep.sweep.script.train = find_damage
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await sweep.end()
    assert sweep.trainings.numbers == [(0, 1), (0, 2)]


async def test_a_paused_sweep_outlives_its_history_and_keeps_its_attempts() -> None:
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(Path(sys.executable).parent / "temporal"),
            dev_server_extra_args=["--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60"],
            data_converter=DATA_CONVERTER,
        ) as server,
        live(server.client, 2, max_parallel=1) as sweep,
    ):
        handle = server.client.get_workflow_handle(sweep.sweep_id)
        await until(begun(sweep.trainings, 0))
        await sweep.steer("priority", 1, priority="high")
        await sweep.steer("pause", 0)
        await until(begun(sweep.trainings, 1))
        await sweep.steer("pause", 1)
        await sweep.reaches("paused", "paused")
        first = (await handle.describe()).run_id
        async with asyncio.timeout(30):
            while (await handle.describe()).run_id == first:  # whatever is said lengthens the history
                await sweep.steer("set", max_parallel=2)
        status = await sweep.status()
        assert [(r.status, r.attempt, r.step, r.priority) for r in status.runs] == [
            ("paused", 1, 15, "normal"),
            ("paused", 1, 15, "high"),
        ]
        assert status.options.max_parallel == 2
        await sweep.steer("resume")
        assert (await sweep.end()).status == "completed"
    assert sorted(sweep.trainings.numbers) == [(0, 1), (0, 2), (1, 1), (1, 2)]


async def test_a_start_that_is_told_after_its_run_has_left_gives_it_no_slot(client: Client) -> None:
    async with live(client, 2, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 1)
        late = AttemptStarted(run=1, attempt=1)
        await client.get_workflow_handle(sweep.sweep_id).signal(CoordinatorWorkflow.attempt_started, late)
        state = await sweep.state(1)
        assert (state.status, state.attempt, state.has_slot, state.slot_since) == ("paused", 1, False, None)
        await sweep.steer("resume", 1)
        assert (await sweep.end()).status == "completed"
    assert sweep.trainings.numbers == [(0, 1), (1, 2)]


async def test_what_failures_have_changed_about_a_training_stays_changed_after_a_pause(client: Client) -> None:
    async with live(client, 1) as sweep:

        async def out_of_memory_once(job: TrainJob) -> TrainResult:
            if job.attempt == 1:
                raise ApplicationError("out of memory", None, 3, type="OutOfMemoryError")
            return await sweep.trainings.train(job)

        sweep.sweep.script.train = out_of_memory_once
        await until(begun(sweep.trainings, 0))
        await sweep.steer("pause", 0)
        await sweep.reaches("paused")
        await sweep.steer("resume", 0)
        await sweep.end()
    assert [(job.attempt, job.batch_divisor) for job in sweep.sweep.script.train_jobs] == [(1, 1), (2, 2), (3, 2)]


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


# --- cancel, drop, retry ----------------------------------------------------------------------------------


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


# --- priorities and settings ------------------------------------------------------------------------------


async def test_an_urgent_run_takes_the_next_free_slot_of_the_workers(client: Client) -> None:
    async with live(client, 4, num_slots=1) as sweep:
        await sweep.reaches("training", "training", "training", "training")
        await until(lambda: len(sweep.trainings.running) == 1)
        (holder,) = sweep.trainings.running
        urgent = max(set(range(4)) - {holder})
        await sweep.steer("priority", urgent, priority="high")
        # the others have given way, and come back to the queue
        others = set(range(4)) - {holder, urgent}
        await sweep.reaches(*("queued" if index in others else "training" for index in range(4)))
        sweep.trainings.may_end.add(holder)
        await until(lambda: len(sweep.trainings.started) == 2)
        assert sweep.trainings.started == [holder, urgent]
        status = await sweep.end()
    assert status.status == "completed"
    assert sorted(sweep.trainings.numbers) == [(index, 1) for index in range(4)]


async def test_an_urgent_run_takes_the_next_free_place_of_max_parallel(client: Client) -> None:
    async with live(client, 3, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await sweep.steer("priority", 2, priority="high")
        sweep.trainings.may_end.add(0)
        await until(lambda: len(sweep.trainings.started) == 2)
        assert sweep.trainings.started == [0, 2]
        await sweep.end()


async def test_with_preempt_the_least_advanced_training_yields_and_is_started_again_later(client: Client) -> None:
    async with live(client, 3, max_parallel=2) as sweep:
        await until(begun(sweep.trainings, 0, 1))
        steered = await steer.prioritize(client, f"{sweep.sweep_id}/2", "high", print, preempt=True)
        assert steered.yields in (0, 1)
        await until(begun(sweep.trainings, 2, 1 - steered.yields))
        yielded = await sweep.state(steered.yields)
        assert (yielded.status, yielded.step, yielded.priority) == ("queued", 15, "normal")
        sweep.trainings.may_end.add(2)
        await until(begun(sweep.trainings, 0, 1))  # by itself
        assert (await sweep.end()).status == "completed"
    assert sweep.trainings.numbers.count((steered.yields, 2)) == 1


async def test_a_run_whose_attempt_was_lost_waits_for_a_slot_like_one_that_had_none(client: Client) -> None:
    async with live(client, 2, num_slots=1, starts=False) as sweep:
        lost: list[int] = []

        async def lose_the_first(job: TrainJob) -> TrainResult:
            if not lost:
                lost.append(int(job.run_id.rpartition("/")[2]))
                raise ApplicationError("killed", type="ProcessDiedError")
            return await sweep.trainings.train(job)

        sweep.sweep.script.train = lose_the_first
        await sweep.begin(2)
        await until(lambda: len(sweep.trainings.running) == 1)
        holder = 1 - lost[0]
        await until(begun(sweep.trainings, holder))
        async with asyncio.timeout(20):
            while (await sweep.state(lost[0])).has_slot:
                await asyncio.sleep(0.05)
        steered = await steer.prioritize(client, f"{sweep.sweep_id}/{lost[0]}", "high", print, preempt=True)
        assert steered.yields == holder
        await until(begun(sweep.trainings, lost[0]))
        assert (await sweep.end()).status == "completed"


async def test_a_higher_limit_starts_more_runs_and_a_lower_one_stops_none(client: Client) -> None:
    async with live(client, 4, max_parallel=1) as sweep:
        await until(begun(sweep.trainings, 0))
        await steer.set_option(client, sweep.sweep_id, "max_parallel=3", print)
        await until(begun(sweep.trainings, 0, 1, 2))
        await steer.set_option(client, sweep.sweep_id, "max_parallel=1", print)
        sweep.trainings.may_end.add(0)
        await sweep.reaches("completed", "training", "training", "queued")
        await steer.set_option(client, sweep.sweep_id, "max_parallel=null", print)
        await until(begun(sweep.trainings, 1, 2, 3))
        await sweep.end()


# --- more runs --------------------------------------------------------------------------------------------


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


# --- races and refusals -----------------------------------------------------------------------------------


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
