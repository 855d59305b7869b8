"""CoordinatorWorkflow: one sweep. Prepares each dataset once, trains and evaluates every run, and knows the ranking."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception
from temporalio.workflow import ChildWorkflowCancellationType

with workflow.unsafe.imports_passed_through():
    from bertpar.events import (
        TERMINAL,
        CloseRunJob,
        EvaluationInput,
        Failure,
        MlflowRun,
        OpenRunJob,
        RunBatch,
        RunRef,
        RunState,
        SnapshotJob,
        SnapshotRef,
        SweepState,
        SweepStatus,
        SweepSummary,
        TrainingInput,
    )
    from bertpar.workflows import calls
    from bertpar.workflows.evaluation import EvaluationWorkflow
    from bertpar.workflows.failures import cancel_requested, describe_failure
    from bertpar.workflows.planning import all_done, leaderboard, next_starts, rank, sweep_outcome
    from bertpar.workflows.training import TrainingWorkflow, run_name

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
        self._mlflow = state.mlflow
        self._mlflow_opening: asyncio.Future[MlflowRun] | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._snapshots: dict[str, asyncio.Future[SnapshotRef]] = {}
        self._known_snapshots = dict(state.snapshots)
        self._cancelled = False
        self._bug: Exception | None = None

    @workflow.run
    async def run(self, state: SweepState) -> SweepSummary:
        """Return how it went once every run has ended; failed runs do not fail the sweep's workflow."""
        try:
            await self._serve()
            await self._finish_opening()
        except BaseException as error:
            if not (is_cancelled_exception(error) or cancel_requested()):
                raise
            self._cancelled = True
            await asyncio.shield(self._cancel_runs())
            raise
        if self._mlflow is not None:
            await self._close_parent("FINISHED" if self._outcome() == "completed" else "FAILED")
        return SweepSummary(sweep_id=self._sweep.sweep_id, status=self._outcome(), num_runs=len(self._runs))

    # --- updates, signals, queries ------------------------------------------------------------------------

    @workflow.update
    def add_runs(self, batch: RunBatch) -> int:
        """Add the batch's runs, and return how many runs the sweep has; runs that are there stay as they are."""
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

    @workflow.query
    def status(self) -> SweepStatus:
        """Return every run's state as the coordinator knows it."""
        return SweepStatus(
            sweep_id=self._sweep.sweep_id,
            name=self._sweep.name,
            status=self._outcome(),
            runs=tuple(self._runs[index] for index in sorted(self._runs)),
            mlflow=self._mlflow,
            options=self._sweep.options,
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
            for index in next_starts(self._runs.values(), self._limit()):
                self._update(index, status="preparing")
                self._tasks[index] = asyncio.create_task(self._carry_out(index))
            if all_done(self._runs.values()) and not self._tasks:
                if self._closed or not await self._another_batch():
                    return
                continue
            await workflow.wait_condition(self._wants_attention)

    def _wants_attention(self) -> bool:
        return (
            self._bug is not None
            or bool(next_starts(self._runs.values(), self._limit()))
            or (all_done(self._runs.values()) and not self._tasks)
            or workflow.info().is_continue_as_new_suggested()
        )

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
        await workflow.wait_condition(lambda: not self._tasks and workflow.all_handlers_finished())
        workflow.continue_as_new(
            replace(
                self._sweep,
                runs=tuple(self._runs.values()),
                closed=self._closed,
                snapshots=self._known_snapshots,
                mlflow=self._mlflow,
            )
        )

    async def _cancel_runs(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await workflow.wait_condition(lambda: not self._tasks)
        for index, state in self._runs.items():
            if state.status not in TERMINAL:
                self._update(index, status="cancelled")
        await self._finish_opening()
        if self._mlflow is not None:
            await self._close_parent("KILLED")

    async def _finish_opening(self) -> None:
        """Wait for an MLflow run that is being opened: one that nobody closes would stay RUNNING."""
        if self._mlflow is None and self._mlflow_opening is not None:
            with suppress(ActivityError):
                self._mlflow = await self._mlflow_opening

    # --- one run ------------------------------------------------------------------------------------------

    async def _carry_out(self, index: int) -> None:
        try:
            await self._prepare_train_evaluate(index)
        except (FailureError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                self._update(index, status="cancelled")
            else:
                self._fail(index, describe_failure(error))
        except Exception as error:  # a bug of ours: it fails the workflow task, which waits for better code
            self._bug = error
        finally:
            del self._tasks[index]

    async def _prepare_train_evaluate(self, index: int) -> None:
        run, options = self._runs[index].run, self._sweep.options
        parent, snapshot = await asyncio.gather(self._parent(), self._snapshot(run))
        self._update(index, status="training")
        trained = await workflow.execute_child_workflow(
            TrainingWorkflow.run,
            TrainingInput(run=run, options=options, snapshot=snapshot, parent_mlflow_run_id=parent.run_id),
            id=f"{run.run_id}/train",
            static_summary=f"train {run_name(run.swept, run.index)}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        self._update(
            index,
            status="evaluating",
            mlflow_run_id=trained.mlflow_run_id,
            attempt=len(trained.attempts),
            num_checkpoints=trained.num_checkpoints,
            step=trained.result.last.step,
            total_steps=trained.result.total_steps,
            metrics=trained.result.metrics,
            best=trained.result.best,
        )
        if cancel_requested():  # the training ended well in the very moment of the cancellation
            await asyncio.shield(self._close_run(trained.mlflow_run_id))
            raise asyncio.CancelledError
        evaluated = await workflow.execute_child_workflow(
            EvaluationWorkflow.run,
            EvaluationInput(
                run=run,
                options=options,
                snapshot=snapshot,
                checkpoint=trained.result.best,
                mlflow_run_id=trained.mlflow_run_id,
                num_attempts=len(trained.attempts),
            ),
            id=f"{run.run_id}/eval",
            static_summary=f"evaluate {run_name(run.swept, run.index)}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        self._update(index, status="completed", metrics=trained.result.metrics | evaluated.metrics)

    async def _parent(self) -> MlflowRun:
        """Return the sweep's own MLflow run, opened once, while the first data is prepared."""
        if self._mlflow is None:
            if self._mlflow_opening is None:
                self._mlflow_opening = asyncio.ensure_future(self._open_parent())
            self._mlflow = await asyncio.shield(self._mlflow_opening)
        return self._mlflow

    async def _snapshot(self, run: RunRef) -> SnapshotRef:
        """Return the run's snapshot; runs that share one share its one activity too."""
        request = run.snapshot_request
        if request in self._known_snapshots:
            return self._known_snapshots[request]
        if request not in self._snapshots:
            self._snapshots[request] = asyncio.ensure_future(self._make_snapshot(run))
        snapshot = await asyncio.shield(self._snapshots[request])  # a cancelled run must not cancel its siblings'
        self._known_snapshots[request] = snapshot
        return snapshot

    async def _make_snapshot(self, run: RunRef) -> SnapshotRef:
        options = self._sweep.options
        return await calls.make_snapshot(SnapshotJob(store_root=options.store_root, spec_key=run.spec_key), options)

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _limit(self) -> int:
        return self._sweep.options.max_parallel or _MAX_IN_FLIGHT

    def _outcome(self) -> Literal["running", "completed", "failed", "cancelled"]:
        return "cancelled" if self._cancelled else sweep_outcome(self._runs.values())

    def _fail(self, index: int, failure: Failure) -> None:
        workflow.logger.error("run %s failed: %s", index, failure.message)
        self._update(index, status="failed", failure=replace(failure, traceback=None))

    def _update(self, index: int, **changes: Any) -> None:
        self._runs[index] = replace(self._runs[index], **changes)
        self._show()

    def _show(self) -> None:
        workflow.set_current_details(leaderboard(self._runs.values()))

    async def _open_parent(self) -> MlflowRun:
        options = self._sweep.options
        tags = {"bertpar.sweep": self._sweep.sweep_id, "bertpar.workflow_id": workflow.info().workflow_id}
        if options.temporal_ui:
            tags["bertpar.temporal_url"] = f"{options.temporal_ui}/workflows/{workflow.info().workflow_id}"
        return await calls.open_run(
            OpenRunJob(
                tracking=options.tracking,
                identity=self._sweep.sweep_id,
                name=self._sweep.sweep_id,
                parent_mlflow_run_id=None,
                tags=tags,
                store_root=options.store_root,
                spec_key=None,
            )
        )

    async def _close_run(self, mlflow_run_id: str) -> None:
        tracking = self._sweep.options.tracking
        await calls.close_run(CloseRunJob(tracking=tracking, mlflow_run_id=mlflow_run_id, status="KILLED", tags={}))

    async def _close_parent(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        assert self._mlflow is not None
        best = next((r for r in rank(self._runs.values()) if r.status == "completed"), None)
        tags = {"bertpar.num_runs": str(len(self._runs))}
        if best is not None:
            tags |= {
                "bertpar.best_run": best.run.run_id,
                "bertpar.best_objective": str(best.metrics[best.run.objective]),
            }
        tracking, run_id = self._sweep.options.tracking, self._mlflow.run_id
        await calls.close_run(CloseRunJob(tracking=tracking, mlflow_run_id=run_id, status=status, tags=tags))
