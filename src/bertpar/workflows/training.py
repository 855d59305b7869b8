"""TrainingWorkflow: one run's training, as a loop of numbered attempts that go on where the last one stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import (
        ATTEMPT_ENDED,
        CHECKPOINT_SAVED,
        AttemptEnded,
        CheckpointRef,
        CheckpointSaved,
        Failure,
        SnapshotJob,
        TrainJob,
        TrainResult,
    )
    from bertpar.states import Attempt, TrainingInput, TrainingLeft, TrainingOutput, TrainingStatus
    from bertpar.workflows import calls
    from bertpar.workflows.failures import RetryBudget, application_error_of, cancel_requested, describe_failure
    from bertpar.workflows.records import opening_of_run

_NUM_RESUME_CANDIDATES = 8

_WITH_ENDS: Final = "attempt-ended"
"""Marks the histories of trainings that tell the ends of all their attempts: older ones go on without, and newer ones,
whose output tells the last, need no mark."""


@workflow.defn
class TrainingWorkflow:
    """Its activity's retries are a loop here: a retried activity would reuse its old input, the resume point too."""

    @workflow.init
    def __init__(self, job: TrainingInput) -> None:
        self._job = job
        self._attempts: list[Attempt] = []
        self._checkpoints: dict[str, CheckpointRef] = {}
        self._pruned: set[str] = set()
        if job.claimed is not None:
            self._checkpoints |= {c.key: c for c in job.claimed.resume_from}
        self._continues: CheckpointRef | None = None
        """The equal run's checkpoint that an attempt here has gone on from."""
        self._mlflow_run_id: str | None = None
        self._budget = RetryBudget(job.options.max_attempts, job.options.resume.nan_lr_factor, job.adjustments)
        self._ended: AttemptEnded | None = None
        """The end of the attempt that succeeded, which the sweep does not know yet."""
        self._training: asyncio.Task[TrainResult] | None = None
        self._is_leaving = False

    @workflow.run
    async def run(self, job: TrainingInput) -> TrainingOutput | TrainingLeft:
        """Return the finished training, or how far it came when told to leave its slot.

        Fails with the type of the last attempt's failure. MLflow is not waited for: the run is opened there meanwhile,
        and whoever closes it does what is missing.
        """
        opening = asyncio.ensure_future(self._open_run())
        try:
            result = await self._train_or_leave()
        finally:
            opening.cancel()
        if result is None:
            latest = self.latest_checkpoint()
            return TrainingLeft(
                step=latest.step if latest else 0,
                num_checkpoints=len(self._checkpoints),
                mlflow_run_id=self._mlflow_run_id,
                adjustments=self._budget.adjustments,
            )
        return TrainingOutput(
            result=result,
            attempts=tuple(self._attempts),
            num_checkpoints=len(self._checkpoints),
            mlflow_run_id=self._mlflow_run_id,
            adjustments=self._budget.adjustments,
            ended=self._ended,
        )

    async def _train_or_leave(self) -> TrainResult | None:
        """Return the result, or None where the training was told to leave and did so before it had one."""
        self._training = asyncio.create_task(self._attempt_until_done())
        if self._is_leaving:  # told so before it began
            self._training.cancel()
        try:
            result = await self._training
        except (FailureError, asyncio.CancelledError) as error:
            if cancel_requested() or not self._is_leaving or not is_cancelled_exception(error):
                raise
            return None
        if cancel_requested():
            if self._ended is not None:  # no output will tell it
                await self._tell(self._ended)
            raise asyncio.CancelledError
        return result

    async def _open_run(self) -> None:
        """Open the MLflow run at once; and once more, with an equal run's rows, when an attempt has gone on from it."""
        job = self._job
        opening = partial(opening_of_run, job.run, job.sweep_id, job.snapshot, job.options, job.claimed)
        try:
            self._mlflow_run_id = (await calls.open_run(opening(), job.options)).run_id
            if job.claimed is not None and job.claimed.resume_from:
                await workflow.wait_condition(lambda: self._continues is not None)
                await calls.open_run(opening(self._continues), job.options)
        except ActivityError as error:  # whoever closes the run is told the same, and tells it
            workflow.logger.error("MLflow was not told of the run yet: %s", describe_failure(error).message)

    async def _attempt_until_done(self) -> TrainResult:
        job, options = self._job, self._job.options
        making = SnapshotJob(store_root=options.store_root, spec_key=job.run.spec_key)
        while True:
            known = len(self._checkpoints)
            try:
                return await calls.with_whole_snapshot(
                    self._attempt, job.snapshot, making, options.heartbeat_timeout_seconds
                )
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                failure = describe_failure(error)
            if cancel_requested():
                raise asyncio.CancelledError
            self._attempts[-1] = replace(self._attempts[-1], cause=failure)
            delay = self._budget.delay_after(failure, progressed=len(self._checkpoints) > known)
            self._show(failure)
            if delay is None:
                raise application_error_of(failure)
            await asyncio.sleep(delay.total_seconds())

    async def _attempt(self) -> TrainResult:
        job, options = self._job, self._job.options
        candidates = self._resume_candidates()
        attempt = Attempt(number=self._newest_number() + 1, resumed_from_step=candidates[0].step if candidates else 0)
        self._attempts.append(attempt)
        self._show()
        training = TrainJob(
            store_root=options.store_root,
            run_id=job.run.run_id,
            spec_key=job.run.spec_key,
            snapshot=job.snapshot,
            attempt=attempt.number,
            resume_from=candidates,
            tracking=options.tracking,
            allow_inexact=options.resume.allow_inexact,
            batch_divisor=self._budget.adjustments.batch_divisor,
            lr_scale=self._budget.adjustments.lr_scale,
            code=options.code,
            demand=job.run.demand,
        )
        try:
            result = await calls.train(training, options)
        except ActivityError as error:
            failure = describe_failure(error)
            self._attempts[-1] = replace(self._attempts[-1], cause=failure)
            latest = self.latest_checkpoint()
            await self._tell(self._end(failure.seconds, kept_seconds=latest.work_seconds if latest else 0.0))
            raise
        ended = self._end(result.train_seconds, kept_seconds=result.resumed_work_seconds + result.train_seconds)
        if job.tells_end:
            with suppress(asyncio.CancelledError):  # what has ended stays ended
                await self._tell(ended)
        else:
            self._ended = ended
        return result

    def _end(self, seconds: float | None, *, kept_seconds: float) -> AttemptEnded:
        """Return what the sweep is to know of the newest attempt, which has given its slot back, however it did."""
        return AttemptEnded(
            run=self._job.run.index,
            attempt=self._newest_number(),
            seconds=seconds,
            noticed_at=workflow.now().timestamp(),
            kept_seconds=kept_seconds,
        )

    async def _tell(self, ended: AttemptEnded) -> None:
        if self._job.tells_end and not workflow.patched(_WITH_ENDS):
            return
        # Shielded, because the SDK's own waiting for a signal swallows a cancellation: who is to leave would go on.
        await asyncio.shield(asyncio.ensure_future(self._signal_sweep(ended)))

    async def _signal_sweep(self, ended: AttemptEnded) -> None:
        with suppress(FailureError):  # the sweep is gone, and this with it
            await workflow.get_external_workflow_handle(self._job.sweep_id).signal(ATTEMPT_ENDED, ended)

    def _newest_number(self) -> int:
        return self._attempts[-1].number if self._attempts else self._job.num_earlier_attempts

    def _resume_candidates(self) -> tuple[CheckpointRef, ...]:
        existing = [c for key, c in self._checkpoints.items() if key not in self._pruned]
        newest_first = sorted(existing, key=lambda c: (c.step, c.attempt), reverse=True)
        return tuple(newest_first[:_NUM_RESUME_CANDIDATES])

    @workflow.signal(name=CHECKPOINT_SAVED)
    def checkpoint_saved(self, saved: CheckpointSaved) -> None:
        """Remember a durable checkpoint; said twice, or by a superseded attempt, it changes nothing."""
        if saved.attempt < self._newest_number():
            workflow.logger.warning("ignored checkpoint_saved of superseded attempt %s", saved.attempt)
            return
        if self._attempts and saved.checkpoint.attempt < saved.attempt:  # found in the store: never signalled before
            step = max(self._attempts[-1].resumed_from_step, saved.checkpoint.step)
            self._attempts[-1] = replace(self._attempts[-1], resumed_from_step=step)
        if self._job.claimed is not None and saved.checkpoint in self._job.claimed.resume_from:
            self._continues = saved.checkpoint
        self._checkpoints.setdefault(saved.checkpoint.key, saved.checkpoint)
        self._pruned.update(saved.pruned)
        self._show()

    @workflow.signal
    def leave(self) -> None:
        """Make a checkpoint where that is possible, leave the slot and return; what has ended by then stays ended."""
        if not self._is_leaving:
            self._is_leaving = True
            if self._training is not None:
                self._training.cancel()

    @workflow.query
    def status(self) -> TrainingStatus:
        """Return attempts and checkpoints as this workflow knows them."""
        return TrainingStatus(
            run_id=self._job.run.run_id,
            attempts=tuple(self._attempts),
            latest_checkpoint=self.latest_checkpoint(),
            num_checkpoints=len(self._checkpoints),
            mlflow_run_id=self._mlflow_run_id,
        )

    @workflow.query
    def checkpoints(self) -> list[CheckpointRef]:
        """Return the checkpoints that exist, by step."""
        existing = [c for key, c in self._checkpoints.items() if key not in self._pruned]
        return sorted(existing, key=lambda c: (c.step, c.attempt))

    @workflow.query
    def latest_checkpoint(self) -> CheckpointRef | None:
        """Return where the next attempt would go on, or None for step 0."""
        candidates = self._resume_candidates()
        return candidates[0] if candidates else None

    def _show(self, failure: Failure | None = None) -> None:
        latest = self.latest_checkpoint()
        lines = [f"**attempt {self._newest_number()}**, checkpoints: {len(self._checkpoints)}"]
        if latest:
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in sorted(latest.metrics.items()))
            lines.append(f"latest: step {latest.step} {metrics}")
        if failure:
            lines.append(f"last failure: {failure.error_type}: {failure.message.splitlines()[0]}")
        workflow.set_current_details("\n\n".join(lines))
