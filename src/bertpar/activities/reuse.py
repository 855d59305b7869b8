"""What is there already of a run, before anything of it is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from bertpar import results
from bertpar.activities._job import application_error, heartbeats
from bertpar.answers import Answers, describe
from bertpar.claims import Claimed, ClaimJob, Forecast, LookUpJob
from bertpar.errors import ConnectionFailedError, NotFoundError, WorkflowStuckError, failure_of
from bertpar.forecast import foresee
from bertpar.paths import home
from bertpar.results import find_result
from bertpar.states import IN_FLIGHT, SweepStatus
from bertpar.store import Store
from bertpar.workflows.coordinator import CoordinatorWorkflow

IN_FLIGHT_ERROR = "RunInFlight"
_CANNOT_SAY = (RPCStatusCode.NOT_FOUND, RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED)
"""How the server speaks of a sweep that is forgotten, or another cluster's, or has no worker any more."""

_LONGEST_WAIT = timedelta(seconds=15)
_answers = Answers()
"""Of the sweeps whose runs others wait for: many ask again and again, and each answer costs its sweep a replay."""


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
            holders = {forecast.held_by for forecast in found if forecast.held_by is not None}
            in_flight = await _in_flight_among(activity.client(), holders)
            return [_told_by_holder(forecast) if forecast.held_by in in_flight else forecast for forecast in found]
    except Exception as error:
        raise application_error(failure_of(error)) from error


def _told_by_holder(forecast: Forecast) -> Forecast:
    """Return the forecast, knowing that the run that set out to compute the same is still at it."""
    return replace(forecast, verdict="duplicate", origin=forecast.held_by, reason=None, seconds=0.0)


async def _claim(job: ClaimJob, store: Store, client: Client) -> Claimed:
    identity = await asyncio.to_thread(results.identify_stored, store, job.spec_key, job.snapshot, job.code)
    if job.cache == "off":
        return Claimed(run_key=identity.key)
    result = await asyncio.to_thread(find_result, store, identity.key, verify=job.verify)
    if result is not None and result.run_id != job.run_id:  # of its own it lacks at most what MLflow is to be told
        await asyncio.to_thread(results.record_origin, store, job.run_id, result.run_id, reused=True)
        return Claimed(
            run_key=identity.key,
            result=result,
            origin=result.run_id,
            saved_seconds=result.training.work_seconds,
        )
    claims = await asyncio.to_thread(results.claims, store, identity.key)
    newest = max(claims, default=0)
    holder = claims.get(newest)
    if job.cache == "on" and holder != job.run_id:
        if holder is not None and await _in_flight_among(client, {holder}):
            raise _come_back(holder)
        if not await asyncio.to_thread(results.claim, store, identity, newest + 1, job.run_id):
            raise _come_back("another run")
    found = await asyncio.to_thread(results.checkpoints_of_equal_runs, store, list(claims.values()))
    others = [checkpoint for checkpoint in found if checkpoint.run_id != job.run_id]
    if not others:
        await asyncio.to_thread(results.forget_origin, store, job.run_id)
        return Claimed(run_key=identity.key)
    origin = others[0].run_id
    await asyncio.to_thread(results.record_origin, store, job.run_id, origin, reused=False)
    return Claimed(
        run_key=identity.key,
        resume_from=tuple(others[: results.NUM_CANDIDATES]),
        origin=origin,
        saved_seconds=others[0].work_seconds,
    )


async def _in_flight_among(client: Client, run_ids: Collection[str]) -> set[str]:
    """Return those of the runs that are being computed; each sweep is asked once."""
    sweep_ids = sorted({run_id.rpartition("/")[0] for run_id in run_ids})
    in_flight = [run_id for sweep_id in sweep_ids for run_id in await _in_flight_in(client, sweep_id)]
    return {*in_flight}.intersection(run_ids)


async def _in_flight_in(client: Client, sweep_id: str) -> list[str]:
    """Return the runs of a sweep that are being computed: none where it cannot say, for then nothing goes on there.

    One that has ended is not asked: it may have no worker.

    Raises:
        ConnectionFailedError: Temporal does not answer now.
    """
    try:
        described = await describe(client, sweep_id)
        if described.status is not WorkflowExecutionStatus.RUNNING:
            return []
        sweep: SweepStatus = await _answers.of(client, described, CoordinatorWorkflow.status)
    except (NotFoundError, WorkflowStuckError):
        return []
    except RPCError as error:
        if error.status in _CANNOT_SAY:
            return []
        raise ConnectionFailedError(f"sweep {sweep_id} cannot be asked what it computes: {error.message}") from error
    return [state.run.run_id for state in sweep.runs if state.status in IN_FLIGHT]


def _come_back(holder: str) -> ApplicationError:
    delay = min(timedelta(seconds=activity.info().attempt), _LONGEST_WAIT)
    return ApplicationError(
        f"{holder} computes the same: its result is waited for", type=IN_FLIGHT_ERROR, next_retry_delay=delay
    )
