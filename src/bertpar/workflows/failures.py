"""What a failed activity or child means, and what to do about it. Pure decisions."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    TimeoutError,
)

from bertpar.errors import PreemptedError, WorkerLostError, is_retryable
from bertpar.events import Failure

_NOT_THE_RUNS_FAULT = frozenset({PreemptedError.error_type(), WorkerLostError.error_type()})
_MAX_DELAY = timedelta(minutes=1)

PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=_MAX_DELAY,
    maximum_attempts=0,
)
"""For what waits for a service: until it is back."""

LIMITED = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=_MAX_DELAY,
    maximum_attempts=10,
)
"""For jobs that may crash again and again."""

ONCE = RetryPolicy(maximum_attempts=1)
"""For training, whose attempts are numbered by the workflow."""


def describe_failure(error: BaseException) -> Failure:
    """Return the root cause of a failed activity or child workflow."""
    cause: BaseException = error
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        traceback = str(cause.details[0]) if cause.details else None
        return Failure(error_type=cause.type or "Error", message=cause.message, traceback=traceback)
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", " ") if cause.type is not None else "time"
        message = f"no sign of life from the worker ({kind} timeout)"
        return Failure(error_type=WorkerLostError.error_type(), message=message)
    if isinstance(cause, CancelledError):
        return Failure(error_type="Cancelled", message="cancelled")
    message = cause.message if isinstance(cause, FailureError) else str(cause)
    return Failure(error_type=type(cause).__name__, message=message)


def delay_before_retry(failure: Failure, num_failures: int, max_attempts: int) -> timedelta | None:
    """Return how long to wait before the next attempt, or None to give up.

    `num_failures` counts the failures of the run itself since it last made progress; a lost or leaving worker is
    not the run's fault, counts for nothing, and is tried again at once, without limit.
    """
    if failure.error_type in _NOT_THE_RUNS_FAULT:
        return timedelta(0)
    if not is_retryable(failure.error_type) or num_failures >= max_attempts:
        return None
    return min(timedelta(seconds=2.0 ** (num_failures - 1)), _MAX_DELAY)


def counts_against_run(failure: Failure) -> bool:
    """Say whether this failure is one of the run itself."""
    return failure.error_type not in _NOT_THE_RUNS_FAULT


def cancel_requested() -> bool:
    """Say whether the current task was cancelled, even where what it awaited ended otherwise and swallowed it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def application_error_of(failure: Failure) -> ApplicationError:
    """Return the error with which a workflow ends for good because of `failure`."""
    details: list[Any] = [failure.traceback] if failure.traceback else []
    return ApplicationError(failure.message, *details, type=failure.error_type, non_retryable=True)
