"""One run of a sweep, from its data to its test score, as the coordinator carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, FailureError
from temporalio.workflow import ChildWorkflowCancellationType

with workflow.unsafe.imports_passed_through():
    from bertpar.claims import Claimed, ClaimJob, KeptResult
    from bertpar.errors import CheckpointDamagedError
    from bertpar.events import CheckpointRef, EvaluateResult, SnapshotRef, TrainResult
    from bertpar.ledger import entry, ledger_of, stopped_early_seconds
    from bertpar.mlflow_jobs import CloseRunJob, EvaluationRecord
    from bertpar.states import EvaluationInput, RunRef, SweepOptions, TrainingInput, TrainingLeft, TrainingOutput
    from bertpar.workflows import calls
    from bertpar.workflows.evaluation import EvaluationWorkflow
    from bertpar.workflows.failures import cancel_requested, describe_failure
    from bertpar.workflows.records import closing_of_run, opening_of_run, run_name, training_id
    from bertpar.workflows.table import RunTable
    from bertpar.workflows.training import TrainingWorkflow

_MAX_REBUILDS = 3
"""How often what is found damaged of a run is made again: damage again and again is no accident."""


@dataclass
class OneRun:
    """Carries out one run, and keeps its state in the table up to date."""

    run: RunRef
    sweep_id: str
    options: SweepOptions
    table: RunTable
    snapshot: SnapshotRef | None = None
    claimed: Claimed | None = None
    trained: TrainingOutput | None = None
    num_rebuilds: int = 0
    is_told_to_leave: bool = False

    async def carry_out(self, snapshot: Awaitable[SnapshotRef]) -> CloseRunJob | None:
        """Return what MLflow is to be told once everything is computed; None if it left its slot before, as told.

        Called again, what is damaged is made again.
        """
        self.snapshot = await snapshot
        self.trained = None
        self.claimed = await self._claim(self.snapshot)
        self._stop_if_cancelled()
        if self.claimed.result is not None:
            return self._reuse(self.claimed.result)
        while True:
            trained = await self._train(self.snapshot)
            if isinstance(trained, TrainingLeft):
                return None
            try:
                evaluated = await self._evaluate(self.snapshot, trained)
                break
            except ChildWorkflowError as error:
                is_damage = describe_failure(error).error_type == CheckpointDamagedError.error_type()
                if not is_damage or not self.may_rebuild():
                    raise
            finally:
                self._stop_if_cancelled()
        return self._report(trained.result, evaluated)

    async def _claim(self, snapshot: SnapshotRef) -> Claimed:
        options = self.options
        claimed = await calls.claim_run(
            ClaimJob(
                store_root=options.store_root,
                run_id=self.run.run_id,
                spec_key=self.run.spec_key,
                snapshot=snapshot,
                code=options.code,
                cache=options.cache,
                verify=self.num_rebuilds > 0,
            )
        )
        self._update(
            run_key=claimed.run_key,
            origin=claimed.origin,
            reused=claimed.result is not None,
            saved_seconds=claimed.saved_seconds,
        )
        return claimed

    def _reuse(self, result: KeptResult) -> CloseRunJob:
        training = result.training
        self._update(step=training.last.step, total_steps=training.total_steps, best=training.best)
        return self._report(training, result.evaluation)

    def _report(self, training: TrainResult, evaluated: EvaluateResult) -> CloseRunJob:
        metrics = training.metrics | evaluated.metrics
        self._update(status="reporting", metrics=metrics, evaluation_key=evaluated.key)
        record = EvaluationRecord(
            checkpoint=training.best,
            result=evaluated,
            timestamp_ms=int(workflow.now().timestamp() * 1000),
            model=self.trained is not None,
        )
        return self.closing("FINISHED", record)

    def leave(self) -> None:
        """Have the training leave its slot in order, with a checkpoint; said again, it changes nothing."""
        self.is_told_to_leave = True

    def may_rebuild(self) -> bool:
        """Count one more time that something of the run is found damaged; say whether it is to be made again."""
        self.num_rebuilds += 1
        return self.num_rebuilds <= _MAX_REBUILDS

    def closing(self, status: Any, evaluation: EvaluationRecord | None = None) -> CloseRunJob:
        """Return the job that ends the run's MLflow run."""
        assert self.snapshot is not None
        continues = self.trained.result.continues if self.trained is not None else None
        opening = opening_of_run(self.run, self.sweep_id, self.snapshot, self.options, self.claimed, continues)
        return closing_of_run(opening, status, ledger_of([self.table[self.run.index]]), self.trained, evaluation)

    async def _train(self, snapshot: SnapshotRef) -> TrainingOutput | TrainingLeft:
        self.is_told_to_leave = False  # if it was so told before, and ended all the same
        before = self.table[self.run.index]
        self._update(status="training")
        training = await workflow.start_child_workflow(
            TrainingWorkflow.run,
            TrainingInput(
                run=self.run,
                sweep_id=self.sweep_id,
                options=self.options,
                snapshot=snapshot,
                claimed=self.claimed,
                num_earlier_attempts=before.attempt,
                adjustments=before.adjustments,
                tells_end=False,
            ),
            id=training_id(self.run.run_id),
            static_summary=f"train {run_name(self.run.swept, self.run.index)}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        telling = asyncio.create_task(self._tell_to_leave(training))
        try:
            trained: TrainingOutput | TrainingLeft = await training
        finally:
            telling.cancel()
        if isinstance(trained, TrainingOutput) and trained.ended is not None:
            self._update(**entry(self.table[self.run.index], trained.ended))
        self._update(
            has_slot=False,
            mlflow_run_id=trained.mlflow_run_id,
            num_checkpoints=max(before.num_checkpoints, trained.num_checkpoints),  # it may not have come to find them
            adjustments=trained.adjustments,
        )
        if isinstance(trained, TrainingLeft):
            self._update(step=max(before.step, trained.step))
            return trained
        self._stop_if_cancelled()
        self.trained = trained
        self._correct_claim(trained.result.continues)
        self._update(
            status="evaluating",
            order=None,
            attempt=trained.attempts[-1].number,
            step=trained.result.last.step,
            total_steps=trained.result.total_steps,
            metrics=trained.result.metrics,
            best=trained.result.best,
            stopped_early_seconds=stopped_early_seconds(trained.result),
        )
        return trained

    def _correct_claim(self, continues: CheckpointRef | None) -> None:
        """Say what the run has gone on from: until now it was what the claim had offered."""
        state = self.table[self.run.index]
        saved_seconds = continues.work_seconds if continues is not None else 0.0
        self._update(
            origin=continues.run_id if continues is not None else None,
            saved_seconds=saved_seconds,
            lost_seconds=max(0.0, state.lost_seconds + saved_seconds - state.saved_seconds),
        )

    async def _tell_to_leave(self, training: workflow.ChildWorkflowHandle[Any, Any]) -> None:
        await workflow.wait_condition(lambda: self.is_told_to_leave)
        with suppress(FailureError):  # it has just ended
            await training.signal(TrainingWorkflow.leave)

    async def _evaluate(self, snapshot: SnapshotRef, trained: TrainingOutput) -> EvaluateResult:
        return await workflow.execute_child_workflow(
            EvaluationWorkflow.run,
            EvaluationInput(run=self.run, options=self.options, snapshot=snapshot, training=trained.result),
            id=f"{self.run.run_id}/eval",
            static_summary=f"evaluate {run_name(self.run.swept, self.run.index)}",
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    def _stop_if_cancelled(self) -> None:
        """Carry out a cancellation that reached nobody, because what was awaited has ended at the same time."""
        if cancel_requested() or self.table[self.run.index].order == "cancel":
            raise asyncio.CancelledError

    def _update(self, **changes: Any) -> None:
        self.table.change(self.run.index, **changes)
