"""CoordinatorWorkflow: one sweep. Prepares each dataset once, trains and evaluates every run, and knows the ranking."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import CloseRunJob, Failure, SnapshotJob, SnapshotRef
    from bertpar.states import TERMINAL, RunBatch, RunRef, RunState, SweepState, SweepStatus, SweepSummary
    from bertpar.workflows import calls
    from bertpar.workflows.failures import cancel_requested, describe_failure, is_damage, last_frame
    from bertpar.workflows.one_run import OneRun
    from bertpar.workflows.parent_run import ParentRun
    from bertpar.workflows.planning import all_done, common_failure, leaderboard, next_starts, sweep_outcome

_IDLE_GRACE = timedelta(minutes=10)
"""How long a sweep that is not closed waits for another batch after its last run."""

MAX_RUNS = 1000
"""Of one sweep: its state has to fit into one payload, of 2 MB at most."""

_MAX_IN_FLIGHT = 100
"""Runs in flight where the user sets no limit: enough to keep a fleet busy, few enough for one history."""


@workflow.defn
class CoordinatorWorkflow:
    @workflow.init
    def __init__(self, state: SweepState) -> None:
        self._sweep = state
        self._runs: dict[int, RunState] = {r.run.index: r for r in state.runs}
        self._closed = state.closed
        self._paused = state.paused
        self._may_pause = state.may_pause
        self._parent = ParentRun(state.sweep_id, state.options, state.mlflow)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """Runs that are being computed. A cancellation cancels them."""
        self._closings: dict[int, asyncio.Task[None]] = {}
        """Runs of which MLflow is being told. What is finished stays: a cancellation waits for them."""
        self._snapshots: dict[str, asyncio.Future[SnapshotRef]] = {}
        self._known_snapshots = dict(state.snapshots)
        self._cancelled = False
        self._ended = False
        self._bug: Exception | None = None

    @workflow.run
    async def run(self, state: SweepState) -> SweepSummary:
        """Return how it went once every run has ended; failed runs do not fail the sweep's workflow."""
        try:
            await self._serve()
        except BaseException as error:
            if not (is_cancelled_exception(error) or cancel_requested()):
                raise
            self._cancelled = True
            await asyncio.shield(self._cancel_runs())
            raise
        await self._parent.close(
            "FINISHED" if sweep_outcome(self._runs.values()) == "completed" else "FAILED", self._runs.values()
        )
        self._ended = True
        return SweepSummary(sweep_id=self._sweep.sweep_id, status=self._outcome(), num_runs=len(self._runs))

    # --- updates, signals, queries ------------------------------------------------------------------------

    @workflow.update
    def add_runs(self, batch: RunBatch) -> int:
        """Add the batch's runs, and return how many runs the sweep has; runs that are there stay as they are."""
        self._forget_failed_snapshots()
        for ref in batch.runs:
            self._runs.setdefault(ref.index, RunState(run=ref))
        self._closed = self._closed or batch.final
        return len(self._runs)

    @add_runs.validator
    def _refuse_if_closed(self, batch: RunBatch) -> None:
        added = sum(ref.index not in self._runs for ref in batch.runs)
        if self._closed and added:
            raise ApplicationError(f"sweep {self._sweep.sweep_id} is closed: it takes no further runs")
        if len(self._runs) + added > MAX_RUNS:
            raise ApplicationError(f"sweep {self._sweep.sweep_id} would have more than {MAX_RUNS} runs: split it")

    @workflow.signal
    def close(self) -> None:
        """Say that no batch follows."""
        self._closed = True

    @workflow.update
    def resume(self) -> None:
        """Start runs again after a pause; the sweep does not pause by itself a second time."""
        self._forget_failed_snapshots()
        self._paused = None
        self._may_pause = False

    @resume.validator
    def _refuse_if_not_paused(self) -> None:
        if self._paused is None:
            raise ApplicationError(f"sweep {self._sweep.sweep_id} is not paused")

    @workflow.query
    def status(self) -> SweepStatus:
        """Return every run's state as the coordinator knows it."""
        return SweepStatus(
            sweep_id=self._sweep.sweep_id,
            name=self._sweep.name,
            status=self._outcome(),
            runs=tuple(self._runs[index] for index in sorted(self._runs)),
            mlflow=self._parent.mlflow_run,
            options=self._sweep.options,
            paused=self._paused,
        )

    @workflow.query
    def snapshots(self) -> dict[str, SnapshotRef]:
        """Return the snapshots made so far, by RunRef.snapshot_request."""
        return self._known_snapshots

    # --- the sweep ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            if self._bug is not None:
                raise self._bug
            if workflow.info().is_continue_as_new_suggested():
                await self._continue_as_new()
            for index in self._next_starts():
                self._parent.open()
                self._update(index, status="preparing")
                self._start(index, self._one_run(index))
            if self._is_idle():
                if self._closed or not await self._another_batch():
                    return
                continue
            await workflow.wait_condition(self._wants_attention)

    def _wants_attention(self) -> bool:
        return (
            self._bug is not None
            or bool(self._next_starts())
            or self._is_idle()
            or workflow.info().is_continue_as_new_suggested()
        )

    def _next_starts(self) -> list[int]:
        limit = self._sweep.options.max_parallel or _MAX_IN_FLIGHT
        return [] if self._paused is not None else next_starts(self._runs.values(), limit)

    def _is_idle(self) -> bool:
        return all_done(self._runs.values()) and not self._tasks and not self._closings

    async def _another_batch(self) -> bool:
        try:
            await workflow.wait_condition(
                lambda: self._closed or not all_done(self._runs.values()), timeout=_IDLE_GRACE
            )
        except TimeoutError:
            self._closed = True
        return not all_done(self._runs.values())

    async def _continue_as_new(self) -> None:
        # Continuing as new would terminate running children: let them end first, start no others.
        await workflow.wait_condition(
            lambda: not self._tasks and not self._closings and workflow.all_handlers_finished()
        )
        workflow.continue_as_new(
            replace(
                self._sweep,
                runs=tuple(self._runs.values()),
                closed=self._closed,
                snapshots=self._known_snapshots,
                mlflow=self._parent.mlflow_run,
                paused=self._paused,
                may_pause=self._may_pause,
            )
        )

    async def _cancel_runs(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await workflow.wait_condition(lambda: not self._tasks)
        for index, state in self._runs.items():
            if state.status not in (*TERMINAL, "reporting"):
                self._update(index, status="cancelled")
        await workflow.wait_condition(lambda: not self._closings)
        await self._parent.close("KILLED", self._runs.values())
        self._ended = True

    # --- one run ------------------------------------------------------------------------------------------

    def _one_run(self, index: int) -> OneRun:
        run = self._runs[index].run
        return OneRun(run, self._sweep.sweep_id, self._sweep.options, partial(self._update, index))

    def _start(self, index: int, one: OneRun) -> None:
        self._tasks[index] = asyncio.create_task(self._carry_out(index, one))

    async def _carry_out(self, index: int, one: OneRun) -> None:
        try:
            closing = await one.carry_out(self._snapshot(one.run))
            self._close(index, closing, one)
        except (FailureError, asyncio.CancelledError) as error:
            cancelled = is_cancelled_exception(error)
            if cancelled:
                self._update(index, status="cancelled")
            else:
                self._fail(index, describe_failure(error))
            if one.snapshot is not None:
                self._close(index, one.closing("KILLED" if cancelled else "FAILED"), one)
        except Exception as error:  # a bug of ours: it fails the workflow task, which waits for better code
            self._bug = error
        finally:
            del self._tasks[index]

    def _close(self, index: int, job: CloseRunJob, one: OneRun) -> None:
        self._closings[index] = asyncio.create_task(self._tell_mlflow(index, job, one))

    async def _tell_mlflow(self, index: int, job: CloseRunJob, one: OneRun) -> None:
        try:
            mlflow_run = await calls.close_run(job, self._sweep.options)
            self._update(index, mlflow_run_id=mlflow_run.run_id)
            if job.status == "FINISHED":
                self._update(index, status="completed")
        except FailureError as error:
            failure = describe_failure(error)
            if job.status != "FINISHED":  # how the run ended is known, and stays
                workflow.logger.error("the MLflow run of run %s stays open: %s", index, failure.message)
            elif is_damage(failure) and not self._cancelled and one.may_rebuild():
                self._start(index, one)
            else:
                self._fail(index, failure)
        except Exception as error:
            self._bug = error
        finally:
            del self._closings[index]

    async def _snapshot(self, run: RunRef) -> SnapshotRef:
        """Return the run's snapshot; runs that share one share its one activity too."""
        request = run.snapshot_request
        if request in self._known_snapshots:
            return self._known_snapshots[request]
        if request not in self._snapshots:
            options = self._sweep.options
            job = SnapshotJob(store_root=options.store_root, spec_key=run.spec_key)
            making = calls.make_snapshot(job, options.heartbeat_timeout_seconds)
            self._snapshots[request] = asyncio.ensure_future(making)
        snapshot = await asyncio.shield(self._snapshots[request])  # a cancelled run must not cancel its siblings'
        self._known_snapshots[request] = snapshot
        return snapshot

    def _forget_failed_snapshots(self) -> None:
        """Let runs that are yet to come try again: what was wrong with the data may have been mended."""
        for request, making in list(self._snapshots.items()):
            if making.done() and request not in self._known_snapshots:
                del self._snapshots[request]

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _outcome(self) -> Literal["running", "completed", "failed", "cancelled"]:
        if not self._ended:
            return "running"
        return "cancelled" if self._cancelled else sweep_outcome(self._runs.values())

    def _fail(self, index: int, failure: Failure) -> None:
        workflow.logger.error("run %s failed: %s", index, failure.message)
        self._update(index, status="failed", failure=replace(failure, traceback=last_frame(failure.traceback)))
        if self._may_pause and (common := common_failure(self._runs.values())) is not None:
            self._paused = f"the first runs failed alike, with {common.error_type}: {common.message.splitlines()[0]}"

    def _update(self, index: int, **changes: Any) -> None:
        self._runs[index] = replace(self._runs[index], **changes)
        workflow.set_current_details(leaderboard(self._runs.values()))
