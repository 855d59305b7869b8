"""What all activities that own a job process share: heartbeats while it runs, failures as Temporal's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from bertpar.codec import from_json
from bertpar.errors import BertparError, PreemptedError, is_retryable
from bertpar.events import Failure
from bertpar.paths import home
from bertpar.process import EventHandler, JobFailed, JobStarter, run_job

T = TypeVar("T")


@cache
def job_starter() -> JobStarter:
    """Return this process's one starter of job processes."""
    return JobStarter(home().logs / "jobs")


async def run_with_heartbeats(
    kind: str,
    job: Any,
    result_type: type[T],
    on_event: Callable[[str, Any], Awaitable[None]] | None = None,
) -> T:
    """Run a job process to its end under heartbeats whose details are the newest `progress` event.

    Raises:
        ApplicationError: typed after errors.py, so that workflows can decide what to do.
    """
    details: list[Any] = []

    async def relay(event: str, value: Any) -> None:
        if event == "progress":
            details[:] = [value]
            activity.heartbeat(value)
        elif on_event is not None:
            await on_event(event, value)

    beating = asyncio.create_task(_beat(details))
    try:
        return await _run(kind, job, result_type, relay)
    except JobFailed as error:
        raise application_error(error.failure) from error
    except BertparError as error:
        raise _preempted_or(Failure(error_type=error.error_type(), message=str(error))) from error
    except asyncio.CancelledError:
        if activity.is_worker_shutdown():
            raise _preempted_or(None) from None
        raise
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


def _preempted_or(failure: Failure | None) -> ApplicationError:
    """Return the failure, or what it is while the worker shuts down: the end of the worker, not of the job."""
    if failure is None or activity.is_worker_shutdown():
        failure = Failure(error_type=PreemptedError.error_type(), message="the worker was stopped")
    return application_error(failure)


async def _run(kind: str, job: Any, result_type: type[T], on_event: EventHandler) -> T:
    result = await run_job(
        job_starter(),
        kind,
        job,
        on_event,
        log_file=_log_file(kind),
        stop_asked=activity.wait_for_worker_shutdown,
    )
    return from_json(result_type, json.dumps(result))


async def _beat(details: list[Any]) -> None:
    timeout = activity.info().heartbeat_timeout
    interval = timeout.total_seconds() / 4 if timeout else 10.0
    while True:
        activity.heartbeat(*details)
        await asyncio.sleep(interval)


def application_error(failure: Failure) -> ApplicationError:
    """Return `failure` as Temporal carries it: the traceback as details, retryable as errors.py decides."""
    return ApplicationError(
        failure.message,
        *([failure.traceback] if failure.traceback else []),
        type=failure.error_type,
        non_retryable=not is_retryable(failure.error_type),
    )


def _log_file(kind: str) -> Path:
    info = activity.info()
    name = re.sub(r"[^\w.-]+", "_", f"{info.workflow_id}-{kind}-{info.activity_id}")
    return home().logs / "jobs" / f"{name}.log"
