"""A run's attempts at training, as the histories of its TrainingWorkflow and of its sweep have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.exceptions import TimeoutError

from bertpar.events import (
    ATTEMPT_STARTED,
    CHECKPOINT_SAVED,
    AttemptStarted,
    CheckpointSaved,
    Failure,
    Progress,
    TrainJob,
    TrainResult,
)
from bertpar.history import History, decoded, decoded_error, event_time, telling_events
from bertpar.workflows.failures import describe_failure

Outcome = Literal["queued", "running", "completed", "failed", "cancelled"]
HeardFrom = Literal["start", "checkpoint", "heartbeat", "failure", "result"]
"""How a step is known: exactly from a failure that names it or from a result, else as a lower bound."""

_EXACT: frozenset[HeardFrom] = frozenset({"failure", "result"})

_ENDED_BY_OTHERS = {
    "workflow_execution_terminated_event_attributes": Failure(
        error_type="Terminated", message="the training workflow was terminated"
    ),
    "workflow_execution_timed_out_event_attributes": Failure(
        error_type="TimedOut", message="the training workflow timed out"
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainingAttempt:
    """One attempt at a run's training, as history has it."""

    number: int
    queued_at: datetime
    started_at: datetime | None = None
    """When it got its slot; None while it has none, also on a worker that has taken it."""
    ended_at: datetime | None = None
    """When its end was noticed: for a lost worker the heartbeat timeout later."""
    outcome: Outcome = "queued"
    cause: Failure | None = None
    resumed_from_step: int
    reached_step: int
    heard_from: HeardFrom = "start"
    """How `reached_step` is known."""
    lost_steps: int | None = None
    """Steps of this attempt that the next one had to do again; None for the last attempt."""

    @property
    def is_exact(self) -> bool:
        """Say whether `reached_step` is all it reached, not a lower bound."""
        return self.heard_from in _EXACT


def slot_times(histories: Iterable[History]) -> dict[int, dict[int, datetime]]:
    """Return when attempts got their slots, by the run's index and their number, from their sweep's histories."""
    times: dict[int, dict[int, datetime]] = defaultdict(dict)
    for history in histories:
        for event, kind, what in telling_events(history):
            if kind == "workflow_execution_signaled_event_attributes" and what.signal_name == ATTEMPT_STARTED:
                started = decoded(what.input.payloads[0], AttemptStarted)
                at = (
                    event_time(event) if started.started_at is None else datetime.fromtimestamp(started.started_at, UTC)
                )
                times[started.run][started.attempt] = at
    return times


def training_attempts(
    histories: Iterable[History], slots: Mapping[int, datetime], pending: Iterable[PendingActivityInfo] = ()
) -> tuple[TrainingAttempt, ...]:
    """Return the attempts in the histories of a run's TrainingWorkflow, those among `pending` as they are now.

    `slots` says when they got their slots, by their numbers.
    """
    attempts: dict[int, TrainingAttempt] = {}
    for history in histories:
        _read(history, attempts)
    for activity in pending:
        for number, attempt in attempts.items():
            if activity.activity_type.name == "train" and attempt.ended_at is None:
                attempts[number] = _with_pending(attempt, activity)
    return with_losses([_with_slot(attempts[number], slots.get(number)) for number in sorted(attempts)])


def _read(history: History, attempts: dict[int, TrainingAttempt]) -> None:
    """Add one execution's attempts."""
    scheduled: dict[int | None, int] = {}
    """Numbers of attempts, by the event that scheduled them."""
    for event, kind, what in telling_events(history):
        if kind == "activity_task_scheduled_event_attributes" and what.activity_type.name == "train":
            job = decoded(what.input.payloads[0], TrainJob)
            scheduled[event.event_id] = job.attempt
            attempts[job.attempt] = _queued(job, event_time(event))
        elif kind == "workflow_execution_signaled_event_attributes" and what.signal_name == CHECKPOINT_SAVED:
            saved = decoded(what.input.payloads[0], CheckpointSaved)
            if saved.attempt in attempts:
                attempts[saved.attempt] = _with_checkpoint(attempts[saved.attempt], saved)
        elif (number := scheduled.get(getattr(what, "scheduled_event_id", None))) is not None:
            attempts[number] = _with_event(attempts[number], kind, what, event_time(event))
        elif kind in _ENDED_BY_OTHERS:
            for number, attempt in attempts.items():
                if attempt.ended_at is None:
                    attempts[number] = replace(
                        attempt, ended_at=event_time(event), outcome="cancelled", cause=_ENDED_BY_OTHERS[kind]
                    )


def _queued(job: TrainJob, at: datetime) -> TrainingAttempt:
    step = job.resume_from[0].step if job.resume_from else 0
    return TrainingAttempt(number=job.attempt, queued_at=at, resumed_from_step=step, reached_step=step)


def _with_slot(attempt: TrainingAttempt, since: datetime | None) -> TrainingAttempt:
    outcome = attempt.outcome if since is None or attempt.ended_at is not None else "running"
    return replace(attempt, started_at=since, outcome=outcome)


def _with_checkpoint(attempt: TrainingAttempt, saved: CheckpointSaved) -> TrainingAttempt:
    if saved.checkpoint.attempt < saved.attempt:  # found in the store, where an earlier attempt had left it unsaid
        step = max(attempt.resumed_from_step, saved.checkpoint.step)
        return _reached(replace(attempt, resumed_from_step=step), step, "start")
    return _reached(attempt, saved.checkpoint.step, "checkpoint")


def _with_event(attempt: TrainingAttempt, kind: str, what: Any, at: datetime) -> TrainingAttempt:
    """Return the attempt after one more event of its activity."""
    if kind == "activity_task_started_event_attributes":
        return attempt  # by then it is on a worker, and may have to wait there
    attempt = replace(attempt, ended_at=at)
    if kind == "activity_task_completed_event_attributes":
        result = decoded(what.result.payloads[0], TrainResult)
        attempt = replace(attempt, outcome="completed", resumed_from_step=result.resumed_from_step)
        return _reached(attempt, result.last.step, "result")
    if kind == "activity_task_canceled_event_attributes":
        return replace(attempt, outcome="cancelled")
    error = decoded_error(what.failure)
    cause = describe_failure(error)
    attempt = replace(attempt, outcome="failed", cause=cause)
    if cause.step is not None:
        return _reached(attempt, cause.step - 1, "failure")
    if isinstance(error, TimeoutError) and error.last_heartbeat_details:
        return _reached(attempt, Progress(**error.last_heartbeat_details[0]).step, "heartbeat")
    return attempt


def _with_pending(attempt: TrainingAttempt, activity: PendingActivityInfo) -> TrainingAttempt:
    if not activity.heartbeat_details.payloads:
        return attempt
    progress = decoded(activity.heartbeat_details.payloads[0], Progress)
    return _reached(attempt, progress.step, "heartbeat")


def _reached(attempt: TrainingAttempt, step: int, heard_from: HeardFrom) -> TrainingAttempt:
    """Return the attempt having reached `step`, unless it was heard of at a later one."""
    if heard_from not in _EXACT and step < attempt.reached_step:
        return attempt
    return replace(attempt, reached_step=step, heard_from=heard_from)


def with_losses(attempts: list[TrainingAttempt]) -> tuple[TrainingAttempt, ...]:
    """Return the attempts with what the next one had to do again."""
    for i, following in enumerate(attempts[1:]):
        if following.resumed_from_step > attempts[i].reached_step:  # killed before it could tell of its checkpoint
            attempts[i] = _reached(attempts[i], following.resumed_from_step, "checkpoint")
    lost = [max(0, a.reached_step - b.resumed_from_step) for a, b in pairwise(attempts)]
    return tuple(replace(a, lost_steps=n) for a, n in zip(attempts, [*lost, None], strict=False))
