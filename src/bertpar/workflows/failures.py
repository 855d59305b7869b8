"""What a failed activity or child means, and what to do about it. Decisions alone: workflows carry them out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
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

from bertpar.errors import ERRORS, Action, BertparError, CorruptError, NotANumberError, WorkerLostError, action_on
from bertpar.events import Failure
from bertpar.states import Adjustments

_MAX_DELAY = timedelta(minutes=1)

PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=_MAX_DELAY,
    maximum_attempts=0,
)
"""Until it succeeds or fails for good, which the activity itself decides (activities/_job.py)."""

SOMETIMES = replace(PATIENT, maximum_attempts=6)
"""For what is worth half a minute of outages and a lost worker or two, and no more."""

ONCE = RetryPolicy(maximum_attempts=1)
"""For training, whose attempts are numbered by the workflow."""


def describe_failure(error: BaseException) -> Failure:
    """Return the root cause of a failed activity or child workflow."""
    cause: BaseException = error
    while isinstance(cause, ActivityError | ChildWorkflowError) and cause.cause is not None:
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        traceback, step, seconds = (*cause.details, None, None, None)[:3]
        return Failure(
            error_type=cause.type or "Error", message=cause.message, traceback=traceback, step=step, seconds=seconds
        )
    if isinstance(cause, TimeoutError):
        kind = cause.type.name.lower().replace("_", " ") if cause.type is not None else "time"
        message = f"no sign of life from the worker ({kind} timeout)"
        last = next(iter(cause.last_heartbeat_details), None)
        seconds = last.get("seconds") if isinstance(last, dict) else None
        return Failure(error_type=WorkerLostError.error_type(), message=message, seconds=seconds)
    if isinstance(cause, CancelledError):
        return Failure(error_type="Cancelled", message="cancelled")
    message = cause.message if isinstance(cause, FailureError) else str(cause)
    return Failure(error_type=type(cause).__name__, message=message)


def is_damage(failure: Failure) -> bool:
    """Say whether a file of the store is missing or not as it was published."""
    return issubclass(ERRORS.get(failure.error_type, BertparError), CorruptError)


def last_frame(traceback: str | None) -> str | None:
    """Return where a Python traceback ends, `File "...", line N, in f`: small enough to keep."""
    frames = [line.strip() for line in (traceback or "").splitlines() if line.lstrip().startswith('File "')]
    return frames[-1] if frames else None


class RetryBudget:
    """How often, how soon and with which changes a run's training is tried again."""

    def __init__(self, max_attempts: int, nan_lr_factor: float | None, adjustments: Adjustments) -> None:
        self._max_attempts = max_attempts
        self._nan_lr_factor = nan_lr_factor
        self._num_failures = 0
        self._num_in_a_row = 0
        self._out_of_memory_at: set[int | None] = set()
        self.adjustments = adjustments
        """What the next attempt changes."""

    def delay_after(self, failure: Failure, *, progressed: bool) -> timedelta | None:
        """Return how long to wait before the next attempt, or None to give up.

        `progressed`: the attempt that failed had made a checkpoint.
        """
        if progressed:
            self._num_failures = self._num_in_a_row = 0
        self._num_in_a_row += 1
        action = action_on(failure.error_type)
        if action is Action.AGAIN:
            return timedelta(0)
        if action is Action.WAIT:
            return _growing_delay(self._num_in_a_row)
        if action is Action.SMALLER:
            return self._delay_with_smaller_batches(failure.step)
        if (
            failure.error_type == NotANumberError.error_type()
            and self._nan_lr_factor
            and self.adjustments.lr_scale == 1.0
        ):
            self.adjustments = replace(self.adjustments, lr_scale=self._nan_lr_factor)
            return timedelta(0)
        self._num_failures += 1
        if action in (Action.FINAL, Action.REBUILD) or self._num_failures >= self._max_attempts:
            return None
        return _growing_delay(self._num_failures)

    def _delay_with_smaller_batches(self, step: int | None) -> timedelta | None:
        if step in self._out_of_memory_at:
            return None
        self._out_of_memory_at.add(step)
        self.adjustments = replace(self.adjustments, batch_divisor=2 * self.adjustments.batch_divisor)
        return timedelta(0)


def _growing_delay(count: int) -> timedelta:
    return min(timedelta(seconds=2.0 ** min(count - 1, 20)), _MAX_DELAY)


def cancel_requested() -> bool:
    """Say whether the current task was cancelled, even where what it awaited ended otherwise and swallowed it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def application_error_of(failure: Failure) -> ApplicationError:
    """Return the error with which a workflow ends for good because of `failure`."""
    details: tuple[Any, ...] = (failure.traceback, failure.step, failure.seconds)
    return ApplicationError(failure.message, *details, type=failure.error_type, non_retryable=True)


def refuse_for(reason: str | None) -> None:
    """Refuse an update with this reason, if there is one."""
    if reason is not None:
        raise ApplicationError(reason)
