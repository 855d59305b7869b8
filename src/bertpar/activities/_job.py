"""What all activities that own a job process share: heartbeats while it runs, failures as Temporal's."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from bertpar.codec import from_json
from bertpar.errors import Action, BertparError, PreemptedError, ProcessDiedError, action_on, failure_of
from bertpar.events import TICK, TICK_SECONDS, Failure
from bertpar.paths import home
from bertpar.process import LONGEST_START_SECONDS, EventHandler, JobFailed, JobStarter, run_job

T = TypeVar("T")

_LONGEST_SILENCE_SECONDS = 20 * TICK_SECONDS
_LONGEST_LEAVING_SECONDS = 60.0
"""For a training that is told to leave: until the end of its step, its validation's batch, and a checkpoint."""
_MAX_FAILURES = 10
"""Of one activity, where nothing says that trying again will help. Outages and lost workers are none."""
_COUNT = "failures"
"""The last detail of the heartbeats of an activity that has failed before: `{_COUNT: how often}`."""


@cache
def job_starter() -> JobStarter:
    """Return this process's one starter of job processes."""
    return JobStarter(home().logs / "jobs")


async def run_with_heartbeats(
    kind: str,
    job: Any,
    result_type: type[T],
    on_event: Callable[[str, Any], Awaitable[None]] | None = None,
    *,
    gpus: Sequence[str] = (),
) -> T:
    """Run a job process, which sees `gpus`, to its end under heartbeats whose details are the newest `progress` event.

    The heartbeats end when the process shows no sign of life, so that a stopped one is as lost as a killed one.

    Raises:
        ApplicationError: typed after errors.py, so that workflows can decide what to do.
    """
    pulse = Pulse()

    async def relay(event: str, value: Any) -> None:
        pulse.seen()
        if event == "progress":
            pulse.details = [value]
            _heartbeat(*pulse.told())
        elif event == "note":
            activity.logger.warning("%s: %s", kind, value)
        elif event != TICK and on_event is not None:
            with pulse.held():
                await on_event(event, value)

    try:
        async with heartbeats(pulse):
            return await _run(kind, job, result_type, relay, gpus)
    except JobFailed as error:
        raise application_error(replace(error.failure, seconds=pulse.seconds())) from error
    except BertparError as error:
        error.step = pulse.next_step()
        raise _preempted_or(failure_of(error), pulse.seconds()) from error
    except asyncio.CancelledError:
        if activity.is_worker_shutdown():
            raise _preempted_or(None, pulse.seconds()) from None
        raise


class Pulse:
    """The signs of life of what an activity waits for."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        longest_start_seconds: float = LONGEST_START_SECONDS,
        *,
        has_begun: bool = True,
    ) -> None:
        """What has not begun, but waits for its turn, takes no time of its own."""
        self._has_begun = has_begun
        self.details: list[Any] = []
        self._clock = clock
        self._began = clock()
        self._alive_until = self._began + longest_start_seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count as alive while its events wait for us."""
        self._alive_until = math.inf
        try:
            yield
        finally:
            self.seen()

    def seen(self) -> None:
        self._alive_until = self._clock() + _LONGEST_SILENCE_SECONDS

    def seconds(self) -> float:
        """Return for how long they have been watched, of what has begun."""
        return self._clock() - self._began if self._has_begun else 0.0

    def told(self) -> list[Any]:
        """Return the details to heartbeat with: who finds the worker lost knows until when it was there."""
        return [{**detail, "seconds": self.seconds()} for detail in self.details]

    def next_step(self) -> int | None:
        """Return the optimizer step that followed the last one heard of; None for what knows no steps."""
        steps = [detail["step"] + 1 for detail in self.details if "step" in detail]
        return steps[-1] if steps else None

    def is_alive(self) -> bool:
        """Say so until the silence has lasted too long: the first may last longer, the process is still starting."""
        return self._clock() < self._alive_until


@asynccontextmanager
async def heartbeats(pulse: Pulse | None = None) -> AsyncIterator[None]:
    """Heartbeat in the background, a few times within the activity's heartbeat timeout, while `pulse` is alive.

    Without one, until the end: what runs in this very process is alive with it.
    """
    beating = asyncio.create_task(_beat(pulse or Pulse(longest_start_seconds=math.inf)))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})  # not `await beating`: that could not be told from a cancellation of ours


def _preempted_or(failure: Failure | None, seconds: float) -> ApplicationError:
    """Return the failure, or what it is while the worker shuts down: the end of the worker, not of the job."""
    if failure is None or activity.is_worker_shutdown():
        failure = Failure(error_type=PreemptedError.error_type(), message="the worker was stopped")
    return application_error(replace(failure, seconds=seconds))


async def _run(kind: str, job: Any, result_type: type[T], on_event: EventHandler, gpus: Sequence[str]) -> T:
    log_file = _log_file(kind)
    if kind == "train":  # makes a checkpoint and leaves
        leaving = asyncio.Event()
        stop_asked = partial(_shutdown_or, leaving)
        running = asyncio.create_task(
            run_job(job_starter(), kind, job, on_event, log_file=log_file, gpus=gpus, stop_asked=stop_asked)
        )
        result = await _result_or_leave(running, leaving)
    else:  # has nothing to hand over, and may end within the grace
        result = await run_job(job_starter(), kind, job, on_event, log_file=log_file, gpus=gpus)
    return from_json(result_type, json.dumps(result))


async def _result_or_leave(running: asyncio.Task[Any], leaving: asyncio.Event) -> Any:
    """Return what `running` returns; when cancelled, give it time to leave in order, and then stop it.

    Raises:
        PreemptedError: it was told to leave and could not say how far it was.
    """
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if activity.is_worker_shutdown():  # it was told so a grace ago
            await _stop(running)
            raise
    leaving.set()
    try:
        return await asyncio.wait_for(running, _LONGEST_LEAVING_SECONDS)
    except (TimeoutError, ProcessDiedError) as error:
        raise PreemptedError(
            "asked to stop; ended without a checkpoint of its own, and goes on from the one before"
        ) from error


async def _stop(running: asyncio.Task[Any]) -> None:
    running.cancel()
    await asyncio.wait({running})


async def _shutdown_or(leaving: asyncio.Event) -> None:
    """Return when the worker shuts down or `leaving` is set."""
    waiting = [asyncio.create_task(activity.wait_for_worker_shutdown()), asyncio.create_task(leaving.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def _beat(pulse: Pulse) -> None:
    timeout = activity.info().heartbeat_timeout
    interval = timeout.total_seconds() / 4 if timeout else 10.0
    while True:
        if pulse.is_alive():
            _heartbeat(*pulse.told())
        await asyncio.sleep(interval)


def _heartbeat(*details: Any) -> None:
    """Heartbeat, and hand on how often the activity has failed: Temporal's count has outages and lost workers in it."""
    count = _num_failures()
    activity.heartbeat(*details, *([{_COUNT: count}] if count else []))


def _num_failures() -> int:
    details = activity.info().heartbeat_details  # of the try before
    last = details[-1] if details else None
    return last.get(_COUNT, 0) if isinstance(last, dict) else 0


def _is_tried_again() -> bool:
    """Say whether Temporal tries the activity again: training's workflow does, and reads progress in heartbeats."""
    policy = activity.info().retry_policy
    return policy is None or policy.maximum_attempts != 1


def application_error(failure: Failure) -> ApplicationError:
    """Return `failure` as Temporal carries it: traceback, step and seconds as details, retried as errors.py decides.

    Activities are retried without limit, so that an outage may last; what fails in itself, only so many times.
    """
    action = action_on(failure.error_type)
    patient = action in (Action.AGAIN, Action.WAIT)
    final = action in (Action.FINAL, Action.REBUILD)
    if not patient and not final and _is_tried_again():
        count = _num_failures() + 1
        activity.heartbeat({_COUNT: count})
        final = count >= _MAX_FAILURES
    return ApplicationError(
        failure.message,
        failure.traceback,
        failure.step,
        failure.seconds,
        type=failure.error_type,
        non_retryable=final,
    )


def _log_file(kind: str) -> Path:
    info = activity.info()
    name = re.sub(r"[^\w.-]+", "_", f"{info.workflow_id}-{kind}-{info.activity_id}")
    return home().logs / "jobs" / f"{name}.log"
