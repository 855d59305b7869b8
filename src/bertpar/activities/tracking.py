"""MLflow runs, opened and closed by one activity each, so that each run has exactly one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from temporalio import activity

from bertpar import tracking
from bertpar.activities._job import application_error, heartbeats
from bertpar.errors import failure_of
from bertpar.mlflow_jobs import CloseRunJob, MlflowRun, OpenRunJob
from bertpar.paths import home
from bertpar.store import Store

J = TypeVar("J", OpenRunJob, CloseRunJob)


@activity.defn
async def open_run(job: OpenRunJob) -> MlflowRun:
    """Find or create the MLflow run of `job.identity`, with its parameters, tags and dataset."""
    return await _in_thread(tracking.open_run, job, job.store_root)


@activity.defn
async def close_run(job: CloseRunJob) -> MlflowRun:
    """Give the MLflow run what it does not have yet, and its final status."""
    return await _in_thread(tracking.close_run, job, job.opening.store_root)


async def _in_thread(work: Callable[[J, Store], MlflowRun], job: J, store_root: str) -> MlflowRun:
    try:
        async with heartbeats():
            return await asyncio.to_thread(work, job, Store(store_root, home().cache))
    except Exception as error:  # a library's own class is retried so many times, not for ever
        raise application_error(failure_of(error)) from error
