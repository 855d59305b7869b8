"""TrainingWorkflow: one run's training, as a loop of numbered attempts that go on where the last one stopped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import (
        CHECKPOINT_SAVED,
        Attempt,
        CheckpointRef,
        CheckpointSaved,
        CloseRunJob,
        Failure,
        MlflowRun,
        OpenRunJob,
        TrainingInput,
        TrainingOutput,
        TrainingStatus,
        TrainJob,
        TrainResult,
    )
    from bertpar.workflows import calls
    from bertpar.workflows.failures import (
        application_error_of,
        cancel_requested,
        counts_against_run,
        delay_before_retry,
        describe_failure,
    )

_NUM_RESUME_CANDIDATES = 8


@workflow.defn
class TrainingWorkflow:
    """Its activity's retries are a loop here: a retried activity would reuse its old input, the resume point too."""

    @workflow.init
    def __init__(self, job: TrainingInput) -> None:
        self._job = job
        self._attempts: list[Attempt] = []
        self._checkpoints: dict[str, CheckpointRef] = {}
        self._pruned: set[str] = set()
        self._mlflow_run_id: str | None = None

    @workflow.run
    async def run(self, job: TrainingInput) -> TrainingOutput:
        """Return the finished training; fails with the type of the last attempt's failure."""
        opening = asyncio.ensure_future(self._open_run())
        try:
            # shield: a run that is being created must be closed, however early the cancellation comes
            mlflow_run = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.shield(self._close_run(await opening, "KILLED"))
            raise
        self._mlflow_run_id = mlflow_run.run_id
        try:
            result = await self._attempt_until_done(mlflow_run)
            if cancel_requested():
                raise asyncio.CancelledError
        except BaseException as error:
            cancelled = is_cancelled_exception(error)
            # shield: the tracking run must be closed even though this workflow is being cancelled
            await asyncio.shield(self._close_run(mlflow_run, "KILLED" if cancelled else "FAILED"))
            raise
        return TrainingOutput(
            result=result,
            attempts=tuple(self._attempts),
            num_checkpoints=len(self._checkpoints),
            mlflow_run_id=mlflow_run.run_id,
        )

    async def _attempt_until_done(self, mlflow_run: MlflowRun) -> TrainResult:
        num_failures = 0
        while True:
            known = len(self._checkpoints)
            try:
                return await self._attempt(mlflow_run)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                failure = describe_failure(error)
            if cancel_requested():
                raise asyncio.CancelledError
            self._attempts[-1] = replace(self._attempts[-1], cause=failure)
            if len(self._checkpoints) > known:
                num_failures = 0
            num_failures += counts_against_run(failure)
            delay = delay_before_retry(failure, num_failures, self._job.options.max_attempts)
            self._show(failure)
            if delay is None:
                raise application_error_of(failure)
            await asyncio.sleep(delay.total_seconds())

    async def _attempt(self, mlflow_run: MlflowRun) -> TrainResult:
        job, options = self._job, self._job.options
        candidates = self._resume_candidates()
        attempt = Attempt(number=len(self._attempts) + 1, resumed_from_step=candidates[0].step if candidates else 0)
        self._attempts.append(attempt)
        self._show()
        return await calls.train(
            TrainJob(
                store_root=options.store_root,
                run_id=job.run.run_id,
                spec_key=job.run.spec_key,
                snapshot=job.snapshot,
                attempt=attempt.number,
                resume_from=candidates,
                tracking=options.tracking,
                mlflow_run_id=mlflow_run.run_id,
            ),
            options,
        )

    def _resume_candidates(self) -> tuple[CheckpointRef, ...]:
        existing = [c for key, c in self._checkpoints.items() if key not in self._pruned]
        newest_first = sorted(existing, key=lambda c: (c.step, c.attempt), reverse=True)
        return tuple(newest_first[:_NUM_RESUME_CANDIDATES])

    async def _open_run(self) -> MlflowRun:
        run, options = self._job.run, self._job.options
        tags = {
            "bertpar.sweep": run.run_id.rsplit("/", 1)[0],
            "bertpar.run_key": run.run_key,
            "bertpar.workflow_id": workflow.info().workflow_id,
            "bertpar.snapshot": self._job.snapshot.key,
            "bertpar.code_digest": options.code_digest,
            **{f"sweep.{key}": value for key, value in run.swept.items()},
        }
        if options.temporal_ui:
            workflow_id = workflow.info().workflow_id.replace("/", "%2F")
            tags["bertpar.temporal_url"] = f"{options.temporal_ui}/workflows/{workflow_id}"
        return await calls.open_run(
            OpenRunJob(
                tracking=options.tracking,
                identity=run.run_id,
                name=run_name(run.swept, run.index),
                parent_mlflow_run_id=self._job.parent_mlflow_run_id,
                tags=tags,
                store_root=options.store_root,
                spec_key=run.spec_key,
                snapshot=self._job.snapshot,
            )
        )

    async def _close_run(self, mlflow_run: MlflowRun, status: Literal["FAILED", "KILLED"]) -> None:
        await calls.close_run(
            CloseRunJob(
                tracking=self._job.options.tracking,
                mlflow_run_id=mlflow_run.run_id,
                status=status,
                tags={"bertpar.attempt": str(len(self._attempts))},
            )
        )

    @workflow.signal(name=CHECKPOINT_SAVED)
    def checkpoint_saved(self, saved: CheckpointSaved) -> None:
        """Remember a durable checkpoint; said twice, or by a superseded attempt, it changes nothing."""
        if saved.attempt < len(self._attempts):
            workflow.logger.warning("ignored checkpoint_saved of superseded attempt %s", saved.attempt)
            return
        if self._attempts and saved.checkpoint.attempt < saved.attempt:  # found in the store: never signalled before
            step = max(self._attempts[-1].resumed_from_step, saved.checkpoint.step)
            self._attempts[-1] = replace(self._attempts[-1], resumed_from_step=step)
        self._checkpoints.setdefault(saved.checkpoint.key, saved.checkpoint)
        self._pruned.update(saved.pruned)
        self._show()

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
        lines = [f"**attempt {len(self._attempts)}**, checkpoints: {len(self._checkpoints)}"]
        if latest:
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in sorted(latest.metrics.items()))
            lines.append(f"latest: step {latest.step} {metrics}")
        if failure:
            lines.append(f"last failure: {failure.error_type}: {failure.message.splitlines()[0]}")
        workflow.set_current_details("\n\n".join(lines))


def run_name(swept: dict[str, str], index: int) -> str:
    """Return what tells this run from its siblings: `lr=1e-05,seed=2`, or its number."""
    return ",".join(f"{key}={value}" for key, value in swept.items()) or f"run {index}"
