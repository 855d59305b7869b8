"""Why a run went as it did: its attempts, what ended each, and the steps done again; read from Temporal's history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client
from temporalio.exceptions import TimeoutError

from bertpar.answers import query
from bertpar.errors import CorruptError, StoreError
from bertpar.events import CHECKPOINT_SAVED, CheckpointSaved, Failure, Progress, SnapshotRef, TrainJob, TrainResult
from bertpar.history import History, decoded, decoded_error, described_in, event_content, event_time, recall, utc
from bertpar.identity import Identity
from bertpar.observe import find_run
from bertpar.results import identify_stored
from bertpar.states import RunState, RunStatus
from bertpar.store import Store
from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.failures import describe_failure
from bertpar.workflows.records import training_id

Outcome = Literal["queued", "running", "completed", "failed", "cancelled"]
HeardFrom = Literal["start", "checkpoint", "heartbeat", "failure", "result"]
"""How a step is known: exactly from a failure that names it or from a result, else as a lower bound."""

EXACT: frozenset[HeardFrom] = frozenset({"failure", "result"})


@dataclass(frozen=True, kw_only=True)
class TrainingAttempt:
    """One attempt at a run's training, as history has it."""

    number: int
    queued_at: datetime
    started_at: datetime | None = None
    """None while no worker has had a slot for it."""
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


@dataclass(frozen=True, kw_only=True)
class EvaluationTries:
    """The evaluation of a run. Its tries are Temporal's own retries, of which history keeps the last failure alone."""

    num_tries: int
    started_at: datetime | None
    """Of the last try."""
    ended_at: datetime | None
    outcome: Outcome
    last_failure: Failure | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What happened to a run until now."""

    run_id: str
    status: RunStatus
    failure: Failure | None
    attempts: tuple[TrainingAttempt, ...]
    evaluation: EvaluationTries | None
    run_key: str | None = None
    """None before its data is prepared."""
    identity: Identity | None = None
    """The parts of the key."""
    origin: str | None = None
    """The run whose result it shows, or whose checkpoint it went on from."""
    reused: bool = False

    @property
    def lost_steps(self) -> int:
        return sum(attempt.lost_steps or 0 for attempt in self.attempts)

    @property
    def train_seconds(self) -> float:
        """Wall time of all attempts that have ended."""
        return sum(
            (attempt.ended_at - attempt.started_at).total_seconds()
            for attempt in self.attempts
            if attempt.started_at is not None and attempt.ended_at is not None
        )

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar why --json`."""
        plain = asdict(self) | {
            "totals": {
                "attempts": len(self.attempts),
                "train_seconds": round(self.train_seconds, 3),
                "lost_steps": self.lost_steps,
            }
        }
        as_written: dict[str, Any] = json.loads(json.dumps(plain, default=datetime.isoformat))
        return as_written


async def explain_run(client: Client, run_id: str, cache: Path) -> RunRecord:
    """Return what happened to the run SWEEP/INDEX.

    Raises:
        NotFoundError: there is no such run.
        RPCError: the server or the evaluation worker does not answer.
    """
    sweep, state = await find_run(client, run_id)
    record = await explain_state(client, state)
    snapshots: dict[str, SnapshotRef] = await query(client, sweep.sweep_id, CoordinatorWorkflow.snapshots)
    if (snapshot := snapshots.get(state.run.snapshot_request)) is None:
        return record
    store, code = Store(sweep.options.store_root, cache), sweep.options.code
    try:
        identity = await asyncio.to_thread(identify_stored, store, state.run.spec_key, snapshot, code)
    except (StoreError, CorruptError):  # what happened is told all the same
        return record
    return replace(record, identity=identity)


async def explain_state(client: Client, state: RunState) -> RunRecord:
    """Return what happened to a run of which the coordinator's knowledge is at hand.

    Raises:
        RPCError: the server does not answer.
    """
    run_id = state.run.run_id
    return RunRecord(
        run_id=run_id,
        status=state.status,
        failure=state.failure,
        attempts=training_attempts(*await recall(client, training_id(run_id))),
        evaluation=evaluation_tries(*await recall(client, f"{run_id}/eval")),
        run_key=state.run_key,
        origin=state.origin,
        reused=state.reused,
    )


_ASKED_TO_END = "activity_task_cancel_requested_event_attributes"
"""Says nothing yet: how the activity took it comes later."""

_ENDED_BY_OTHERS = {
    "workflow_execution_terminated_event_attributes": Failure(
        error_type="Terminated", message="the training workflow was terminated"
    ),
    "workflow_execution_timed_out_event_attributes": Failure(
        error_type="TimedOut", message="the training workflow timed out"
    ),
}


# --- training ---------------------------------------------------------------------------------------------


def training_attempts(
    histories: Iterable[History], pending: Iterable[PendingActivityInfo] = ()
) -> tuple[TrainingAttempt, ...]:
    """Return the attempts in the histories of a run's TrainingWorkflow, those among `pending` as they are now."""
    attempts: dict[int, TrainingAttempt] = {}
    for history in histories:
        _read_training(history, attempts)
    for activity in pending:
        for number, attempt in attempts.items():
            if activity.activity_type.name == "train" and attempt.ended_at is None:
                attempts[number] = _with_pending(attempt, activity)
    return with_losses([attempts[number] for number in sorted(attempts)])


def _read_training(history: History, attempts: dict[int, TrainingAttempt]) -> None:
    """Add one execution's attempts."""
    scheduled: dict[int | None, int] = {}
    """Numbers of attempts, by the event that scheduled them."""
    for event in history:
        kind, what = event_content(event)
        if kind == _ASKED_TO_END:
            continue
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


def _with_checkpoint(attempt: TrainingAttempt, saved: CheckpointSaved) -> TrainingAttempt:
    if saved.checkpoint.attempt < saved.attempt:  # found in the store, where an earlier attempt had left it unsaid
        step = max(attempt.resumed_from_step, saved.checkpoint.step)
        return _reached(replace(attempt, resumed_from_step=step), step, "start")
    return _reached(attempt, saved.checkpoint.step, "checkpoint")


def _with_event(attempt: TrainingAttempt, kind: str, what: Any, at: datetime) -> TrainingAttempt:
    """Return the attempt after one more event of its activity."""
    if kind == "activity_task_started_event_attributes":
        return replace(attempt, started_at=at, outcome="running")
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
    if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
        return attempt
    attempt = replace(attempt, started_at=utc(activity.last_started_time), outcome="running")
    if not activity.heartbeat_details.payloads:
        return attempt
    progress = decoded(activity.heartbeat_details.payloads[0], Progress)
    return _reached(attempt, progress.step, "heartbeat")


def _reached(attempt: TrainingAttempt, step: int, heard_from: HeardFrom) -> TrainingAttempt:
    """Return the attempt having reached `step`, unless it was heard of at a later one."""
    if heard_from not in EXACT and step < attempt.reached_step:
        return attempt
    return replace(attempt, reached_step=step, heard_from=heard_from)


def with_losses(attempts: list[TrainingAttempt]) -> tuple[TrainingAttempt, ...]:
    """Return the attempts with what the next one had to do again."""
    for i, following in enumerate(attempts[1:]):
        if following.resumed_from_step > attempts[i].reached_step:  # killed before it could tell of its checkpoint
            attempts[i] = _reached(attempts[i], following.resumed_from_step, "checkpoint")
    lost = [max(0, a.reached_step - b.resumed_from_step) for a, b in pairwise(attempts)]
    return tuple(replace(a, lost_steps=n) for a, n in zip(attempts, [*lost, None], strict=False))


# --- evaluation -------------------------------------------------------------------------------------------


def evaluation_tries(
    histories: Iterable[History], pending: Iterable[PendingActivityInfo] = ()
) -> EvaluationTries | None:
    """Return the evaluation in the histories of a run's EvaluationWorkflow; None where it has not begun."""
    tries: EvaluationTries | None = None
    num_before = 0
    """Tries at the activities before the one that is being read."""
    for history in histories:
        scheduled = 0
        for event in history:
            kind, what = event_content(event)
            if kind == _ASKED_TO_END:
                continue
            if kind == "activity_task_scheduled_event_attributes" and what.activity_type.name == "evaluate":
                scheduled = event.event_id
                num_before = tries.num_tries if tries else 0
                tries = replace(tries or _NO_TRY, started_at=None, ended_at=None, outcome="queued")
            elif tries is not None and getattr(what, "scheduled_event_id", None) == scheduled:
                tries = _with_evaluation_event(tries, kind, what, event_time(event), num_before)
    for activity in pending:
        if tries is not None and activity.activity_type.name == "evaluate":
            begun = activity.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            tries = replace(
                tries,
                num_tries=num_before + (activity.attempt if begun else activity.attempt - 1),
                started_at=utc(activity.last_started_time) if activity.HasField("last_started_time") else None,
                outcome="running" if begun else "queued",
                last_failure=described_in(activity, "last_failure") or tries.last_failure,
            )
    return tries


_NO_TRY = EvaluationTries(num_tries=0, started_at=None, ended_at=None, outcome="queued", last_failure=None)


def _with_evaluation_event(
    tries: EvaluationTries, kind: str, what: Any, at: datetime, num_before: int
) -> EvaluationTries:
    if kind == "activity_task_started_event_attributes":
        failure = described_in(what, "last_failure") or tries.last_failure
        return replace(
            tries, num_tries=num_before + what.attempt, started_at=at, outcome="running", last_failure=failure
        )
    tries = replace(tries, ended_at=at)
    if kind == "activity_task_completed_event_attributes":
        return replace(tries, outcome="completed")
    if kind == "activity_task_canceled_event_attributes":
        return replace(tries, outcome="cancelled")
    return replace(tries, outcome="failed", last_failure=described_in(what, "failure"))
