"""What is there already of a run, before anything of it is computed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from bertpar import results
from bertpar.activities._job import application_error, heartbeats
from bertpar.errors import NotFoundError, failure_of
from bertpar.events import Claimed, ClaimJob, Forecast, LookUpJob
from bertpar.forecast import foresee
from bertpar.observe import find_run
from bertpar.paths import home
from bertpar.results import claimants, find_result
from bertpar.states import IN_FLIGHT
from bertpar.store import Store

IN_FLIGHT_ERROR = "RunInFlight"
_LONGEST_WAIT = timedelta(seconds=15)


@activity.defn
async def claim_run(job: ClaimJob) -> Claimed:
    """Return what equal runs have done of this one; while one of them is being computed, come back later.

    Waiting is Temporal's own retry, which takes neither a slot nor events of the history.
    """
    try:
        async with heartbeats():
            return await _claim(job, Store(job.store_root, home().cache), activity.client())
    except ApplicationError:
        raise
    except Exception as error:
        raise application_error(failure_of(error)) from error


@activity.defn
async def look_up(job: LookUpJob) -> list[Forecast]:
    """Return what would become of each run, were it submitted now."""
    try:
        async with heartbeats():
            found = await asyncio.to_thread(foresee, Store(job.store_root, home().cache), job)
            return [await _told_by_holder(activity.client(), forecast) for forecast in found]
    except Exception as error:
        raise application_error(failure_of(error)) from error


async def _told_by_holder(client: Client, forecast: Forecast) -> Forecast:
    """Return the forecast, knowing whether the run that set out to compute the same is still at it."""
    if forecast.held_by is None or not await _is_in_flight(client, forecast.held_by):
        return forecast
    return replace(forecast, verdict="duplicate", origin=forecast.held_by, reason=None, seconds=0.0)


async def _claim(job: ClaimJob, store: Store, client: Client) -> Claimed:
    identity = await asyncio.to_thread(results.identify_stored, store, job.spec_key, job.snapshot, job.code)
    if job.cache == "off":
        return Claimed(run_key=identity.key)
    result = await asyncio.to_thread(find_result, store, identity.key, verify=job.verify)
    if result is not None:
        await asyncio.to_thread(_record_origin, store, job.run_id, result.run_id, reused=True)
        return Claimed(
            run_key=identity.key,
            result=result,
            origin=result.run_id,
            saved_seconds=result.training.work_seconds,
        )
    before = await asyncio.to_thread(claimants, store, identity.key)
    if job.cache == "on" and (not before or before[-1] != job.run_id):
        if before and await _is_in_flight(client, before[-1]):
            raise _come_back(before[-1])
        if not await asyncio.to_thread(results.claim, store, identity, len(before), job.run_id):
            raise _come_back("another run")
    found = await asyncio.to_thread(results.checkpoints_of_equal_runs, store, before)
    others = [c for c in found if not c.key.startswith(f"runs/{job.run_id}/")]
    if not others:
        return Claimed(run_key=identity.key)
    origin = results.run_of(others[0].key)
    await asyncio.to_thread(_record_origin, store, job.run_id, origin, reused=False)
    return Claimed(
        run_key=identity.key,
        resume_from=tuple(others[: results.NUM_CANDIDATES]),
        origin=origin,
        saved_seconds=await asyncio.to_thread(results.work_seconds, store, others[0]),
    )


def _record_origin(store: Store, run_id: str, origin: str, *, reused: bool) -> None:
    if origin != run_id:
        results.record_origin(store, run_id, origin, reused=reused)


async def _is_in_flight(client: Client, run_id: str) -> bool:
    """Say whether a run is being computed, without a question to a sweep that has ended: it may have no worker."""
    sweep = client.get_workflow_handle(run_id.rpartition("/")[0])
    try:
        if (await sweep.describe()).status is not WorkflowExecutionStatus.RUNNING:
            return False
        _, state = await find_run(client, run_id)
    except NotFoundError:
        return False
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:  # forgotten, or another cluster's
            return False
        raise
    return state.status in IN_FLIGHT


def _come_back(holder: str) -> ApplicationError:
    delay = min(timedelta(seconds=activity.info().attempt), _LONGEST_WAIT)
    return ApplicationError(
        f"{holder} computes the same: its result is waited for", type=IN_FLIGHT_ERROR, next_retry_delay=delay
    )
