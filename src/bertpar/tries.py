"""The tries at a run's evaluation, as the histories of its EvaluationWorkflow have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo

from bertpar.attempts import Outcome
from bertpar.events import Failure
from bertpar.history import History, described_in, event_time, telling_events, utc


@dataclass(frozen=True, kw_only=True)
class EvaluationTries:
    """The evaluation of a run. Its tries are Temporal's own retries, of which history keeps the last failure alone."""

    num_tries: int
    started_at: datetime | None
    """Of the last try."""
    ended_at: datetime | None
    outcome: Outcome
    last_failure: Failure | None


_NO_TRY = EvaluationTries(num_tries=0, started_at=None, ended_at=None, outcome="queued", last_failure=None)


def evaluation_tries(
    histories: Iterable[History], pending: Iterable[PendingActivityInfo] = ()
) -> EvaluationTries | None:
    """Return the evaluation in the histories of a run's EvaluationWorkflow; None where it has not begun."""
    tries: EvaluationTries | None = None
    num_before = 0
    """Tries at the activities before the one that is being read."""
    for history in histories:
        scheduled = 0
        for event, kind, what in telling_events(history):
            if kind == "activity_task_scheduled_event_attributes" and what.activity_type.name == "evaluate":
                scheduled = event.event_id
                num_before = tries.num_tries if tries else 0
                tries = replace(tries or _NO_TRY, started_at=None, ended_at=None, outcome="queued")
            elif tries is not None and getattr(what, "scheduled_event_id", None) == scheduled:
                tries = _with_event(tries, kind, what, event_time(event), num_before)
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


def _with_event(tries: EvaluationTries, kind: str, what: Any, at: datetime, num_before: int) -> EvaluationTries:
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
