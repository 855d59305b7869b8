"""The report of a sweep, made once its runs have ended and kept with the sweep's own MLflow run."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError

from bertpar import tracking
from bertpar.activities._job import heartbeats
from bertpar.errors import Action, BertparError, action_on, failure_of
from bertpar.mlflow_jobs import ReportJob
from bertpar.paths import home
from bertpar.store import Store


@activity.defn
async def make_report(job: ReportJob) -> None:
    """Make the report and log it; again, the newer page replaces the older.

    An outage is worth another try. Anything else is not: the sweep waits for its end.
    """
    try:
        async with heartbeats():
            await _make(job)
    except Exception as error:
        failure = failure_of(error)
        waits = isinstance(error, BertparError) and action_on(failure.error_type) is Action.WAIT
        raise ApplicationError(
            failure.message, failure.traceback, None, type=failure.error_type, non_retryable=not waits
        ) from error


async def _make(job: ReportJob) -> None:
    from bertpar.report import REPORT_NAME, gather, render

    opening, cache = job.opening, home().cache
    contents = await gather(activity.client(), opening.identity, cache, job.status)
    page = await asyncio.to_thread(render, contents)
    run = await asyncio.to_thread(tracking.open_run, opening, Store(opening.store_root, cache))
    await asyncio.to_thread(tracking.log_page, opening.tracking.uri, run.run_id, REPORT_NAME, page)
