"""Trains a finished run again, reusing nothing, and says whether the results are the same bits, or what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from temporalio.client import Client

from bertpar import provenance
from bertpar.answers import query
from bertpar.code import job_code_digest, library_versions
from bertpar.errors import NotFoundError
from bertpar.events import CheckpointRef, Code, SnapshotRef
from bertpar.identity import differing_values
from bertpar.observe import find_run
from bertpar.paths import Home
from bertpar.provenance import Provenance
from bertpar.results import store_meta
from bertpar.states import RunRef, SweepStatus
from bertpar.store import Store
from bertpar.submit import new_sweep_id, submit_batch
from bertpar.verify.compare import differences, faults
from bertpar.verify.outcome import RunOutcome, find_mlflow_runs, read_outcome
from bertpar.workflows.coordinator import CoordinatorWorkflow

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A run beside the one that repeated it."""

    run_id: str
    repeated_by: str
    identical: bool
    differences: tuple[str, ...]
    """Where the results part, the earliest step first: the original's value, then the repetition's."""
    surroundings: tuple[str, ...]
    """What else differs: code, packages, machine, data, model."""

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar reproduce --json`."""
        return asdict(self)


async def begin(client: Client, run_id: str, home: Home, say: Say) -> str:
    """Submit the run once more, in a sweep of its own that reuses nothing, and return its id there.

    What it computes was frozen when it was first submitted: its configuration is not composed anew.

    Raises:
        NotFoundError: no such run, or one that has no result.
        ConfigError, ConnectionFailedError: as a submission.
    """
    sweep, state = await find_run(client, run_id)
    if state.status != "completed":
        raise NotFoundError(f"{run_id} has no result to compare with: it is {state.status}, and must be completed")
    store = Store(sweep.options.store_root, home.cache)
    sweep_id = new_sweep_id("reproduce")
    ref = replace(
        state.run, run_id=f"{sweep_id}/0", index=0, provenance=await asyncio.to_thread(provenance.capture, store)
    )
    code = Code(digest=job_code_digest(), versions=library_versions())
    options = replace(sweep.options, cache="off", code=code, max_parallel=None, budget_hours=None)
    await submit_batch(client, sweep_id, f"reproduce {run_id}", options, [ref], final=True, say=say)
    return ref.run_id


async def compare(client: Client, run_id: str, again_id: str, home: Home) -> Reproduction:
    """Return how a run and its repetition, which has ended, compare.

    Raises:
        CorruptError: a checkpoint or an evaluation is damaged.
        TrackingError: MLflow cannot be reached.
    """
    (sweep, state), (again_sweep, again) = await find_run(client, run_id), await find_run(client, again_id)
    store = Store(sweep.options.store_root, home.cache)
    snapshots = [
        (await query(client, s.sweep_id, CoordinatorWorkflow.snapshots)).get(r.run.snapshot_request)
        for s, r in ((sweep, state), (again_sweep, again))
    ]

    def look() -> Reproduction:
        uri = sweep.options.tracking.uri
        one, other = (_outcome(store, uri, name) for name in (run_id, again_id))
        found = (*differences(one, other), *(f"{again_id}: {fault}" for fault in faults(other)))
        around = [*_code_differences(store, sweep, state.run, again_sweep, again.run), *_data_differences(*snapshots)]
        around += _machine_differences(store, state.best, again.best)
        return Reproduction(
            run_id=run_id,
            repeated_by=again_id,
            identical=not found,
            differences=found,
            surroundings=tuple(around),
        )

    return await asyncio.to_thread(look)


def _outcome(store: Store, uri: str, run_id: str) -> RunOutcome:
    return read_outcome(store, uri, run_id, find_mlflow_runs(uri, run_id).get(run_id, []))


def _code_differences(
    store: Store, sweep: SweepStatus, run: RunRef, again_sweep: SweepStatus, again: RunRef
) -> list[str]:
    ours, theirs = again_sweep.options.code, sweep.options.code
    now, then = (_captured(store, ref) for ref in (again, run))
    found = differing_values(ours.versions, theirs.versions)
    if ours.digest != theirs.digest:
        found.insert(0, f"bertpar's code: {_told(ours, now)} instead of {_told(theirs, then)}")
    if now is not None and then is not None:
        others = differing_values({**now.packages, "Python": now.python}, {**then.packages, "Python": then.python})
        found += [phrase for phrase in others if phrase not in found]
    return found


def _captured(store: Store, run: RunRef) -> Provenance | None:
    return provenance.read(store, run.provenance) if run.provenance is not None else None


def _told(code: Code, captured: Provenance | None) -> str:
    if captured is None or captured.commit is None:
        return code.digest[:12]
    return f"{code.digest[:12]} (commit {captured.commit[:12]}{' with changes' if captured.changed else ''})"


def _data_differences(one: SnapshotRef | None, other: SnapshotRef | None) -> list[str]:
    if one is None or other is None:
        return []
    found = [f"data: {other.key} instead of {one.key}"] if one.digest != other.digest else []
    if one.model_digest != other.model_digest:
        found.append(f"pretrained model: {other.model_digest[:12]} instead of {one.model_digest[:12]}")
    return found


def _machine_differences(store: Store, one: CheckpointRef | None, other: CheckpointRef | None) -> list[str]:
    machines = [store_meta(store, c.key).get("machine") if c is not None else None for c in (one, other)]
    if machines[0] is None or machines[1] is None:
        return []
    return [f"machine: {phrase}" for phrase in differing_values(machines[1], machines[0])]
