"""MLflow runs, opened and closed by one activity each, so that each run has exactly one."""

from __future__ import annotations

import asyncio

from temporalio import activity

from bertpar import tracking
from bertpar.activities._job import application_error, heartbeats
from bertpar.errors import BertparError
from bertpar.events import CloseRunJob, Failure, MlflowRun, OpenRunJob
from bertpar.paths import home
from bertpar.store import Store


@activity.defn
async def open_run(job: OpenRunJob) -> MlflowRun:
    """Find or create the MLflow run of `job.identity`, with its parameters, tags and dataset."""
    try:
        async with heartbeats():
            return await asyncio.to_thread(tracking.open_run, job, Store(job.store_root, home().cache))
    except BertparError as error:
        raise application_error(Failure(error_type=error.error_type(), message=str(error))) from error


@activity.defn
async def close_run(job: CloseRunJob) -> None:
    """Give the MLflow run its final status and tags."""
    try:
        async with heartbeats():
            await asyncio.to_thread(tracking.close_run, job)
    except BertparError as error:
        raise application_error(Failure(error_type=error.error_type(), message=str(error))) from error
