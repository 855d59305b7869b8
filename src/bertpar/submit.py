"""Submits a batch of runs: checks what it needs, keeps its specifications, hands it to its sweep's coordinator."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from bertpar import stack, tracking
from bertpar.capacity import shortage
from bertpar.client import connect, uses_local_stack, web_ui
from bertpar.code import job_code_digest, library_versions
from bertpar.codec import publish_spec
from bertpar.compose import SweepSpec
from bertpar.composing import Batch
from bertpar.errors import ConfigError, ConnectionFailedError
from bertpar.events import Code
from bertpar.machine import machine_capacity
from bertpar.paths import Home
from bertpar.provenance import capture
from bertpar.spec import demand_of, snapshot_request_key
from bertpar.states import RunBatch, RunRef, SweepOptions, SweepState
from bertpar.store import Store
from bertpar.workflows.coordinator import CoordinatorWorkflow

_RUNS_PER_UPDATE = 200
"""Keeps one update's payload far below Temporal's limit of 2 MB."""

_SECONDS_UNTIL_SAID = 5.0
"""A sweep that no worker takes up must not just look as if it hung."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A batch that its sweep has accepted."""

    client: Client
    sweep_id: str
    runs: tuple[RunRef, ...]
    options: SweepOptions


async def submit(
    batch: Batch, home: Home, *, sweep_id: str | None = None, final: bool, say: Callable[[str], None]
) -> Submission:
    """Add the batch to the sweep, to a new one where none is named; return once the sweep has accepted the runs.

    `final`: no batch follows. Nothing is started where the store cannot be written, or MLflow not be reached.

    Raises:
        ConfigError, StoreError, TrackingError, ConnectionFailedError, StackError: the batch cannot be submitted.
    """
    sweep = batch.sweep
    store = Store(sweep.store_root, home.cache)
    store.check_writable()
    tracking.check_reachable(sweep.tracking)
    client = await connect(sweep.temporal, home, on_wait=say)
    check_fits(batch, home)
    sweep_id = sweep_id or new_sweep_id(sweep.name)
    refs = run_refs(sweep_id, batch, store)
    options = sweep_options(sweep, web_ui(sweep.temporal, home))
    await submit_batch(client, sweep_id, sweep.name, options, refs, final=final, say=say)
    return Submission(client=client, sweep_id=sweep_id, runs=tuple(refs), options=options)


def check_fits(batch: Batch, home: Home) -> None:
    """Refuse runs that take more than the local stack has; what the workers of a cluster have nobody knows.

    Raises:
        ConfigError: with one line per distinct problem.
    """
    running = stack.read(home) if uses_local_stack(batch.sweep.temporal) else None
    if running is None:
        return
    capacity = machine_capacity(running.slots)
    problems = [shortage(demand_of(run), capacity, "the local stack") for run in batch.runs]
    if found := dict.fromkeys(problem for problem in problems if problem is not None):
        raise ConfigError("\n".join(found))


def new_sweep_id(name: str) -> str:
    """Return an id that sorts by time and can be typed: `movie_reviews-1123-194501-4f2a`."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-") or "sweep"
    return f"{safe}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def run_refs(sweep_id: str, batch: Batch, store: Store) -> list[RunRef]:
    """Keep every run's specification in the store, and return the small references that travel."""
    swept = swept_values(batch.overrides, batch.given)
    provenance = capture(store)
    return [
        RunRef(
            run_id=f"{sweep_id}/{index}",
            index=index,
            overrides=batch.overrides[i],
            swept=swept[i],
            spec_key=publish_spec(store, run),
            snapshot_request=snapshot_request_key(run.data, run.model),
            objective=run.checkpoint.monitor,
            mode=run.checkpoint.mode,
            provenance=provenance,
            demand=demand_of(run),
        )
        for i, (index, run) in enumerate(enumerate(batch.runs, start=batch.first_index))
    ]


def swept_values(overrides: Sequence[Sequence[str]], given: Set[str]) -> list[dict[str, str]]:
    """Return, for each run, the overridden keys that the sweeper chose a value for: all but those of `given`.

    A sweeper may launch one run at a time, so that its siblings do not show what is swept.
    """
    as_dicts = [dict(item.split("=", 1) for item in run if "=" in item) for run in overrides]
    keys = {
        key: None
        for run in as_dicts
        for key, value in run.items()
        if f"{key}={value}" not in given or len({r.get(key) for r in as_dicts}) > 1
    }
    return [{key: run[key] for key in keys if key in run} for run in as_dicts]


def sweep_options(sweep: SweepSpec, temporal_ui: str | None) -> SweepOptions:
    """Return what the workflows need to know of how the sweep runs."""
    return SweepOptions(
        store_root=sweep.store_root,
        tracking=sweep.tracking,
        training_queue=sweep.temporal.training_queue,
        eval_queue=sweep.temporal.eval_queue,
        heartbeat_timeout_seconds=sweep.temporal.heartbeat_timeout_seconds,
        max_attempts=sweep.temporal.max_attempts,
        max_parallel=sweep.max_parallel,
        resume=sweep.resume,
        temporal_ui=temporal_ui,
        code=Code(digest=job_code_digest(), versions=library_versions()),
        cache=sweep.cache,
        budget_hours=sweep.budget_hours,
    )


async def submit_batch(
    client: Client,
    sweep_id: str,
    name: str,
    options: SweepOptions,
    runs: Sequence[RunRef],
    *,
    final: bool,
    say: Callable[[str], None],
) -> None:
    """Add `runs` to the sweep's coordinator, starting it if this is its first batch; safe to call again.

    Raises:
        ConfigError: the sweep has ended and takes no further runs.
        ConnectionFailedError: the server went away.
    """
    for start in range(0, len(runs), _RUNS_PER_UPDATE):
        chunk = tuple(runs[start : start + _RUNS_PER_UPDATE])
        last = start + _RUNS_PER_UPDATE >= len(runs)
        begin = WithStartWorkflowOperation(
            CoordinatorWorkflow.run,
            SweepState(sweep_id=sweep_id, name=name, options=options),
            id=sweep_id,
            task_queue=options.eval_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            static_summary=name,
        )
        try:
            accepted = asyncio.ensure_future(
                client.execute_update_with_start_workflow(
                    CoordinatorWorkflow.add_runs,
                    RunBatch(runs=chunk, final=final and last),
                    id=f"{sweep_id}/{chunk[0].index}",
                    start_workflow_operation=begin,
                )
            )
            await asyncio.wait({accepted}, timeout=_SECONDS_UNTIL_SAID)
            if not accepted.done():
                say(f"waiting for a worker on queue {options.eval_queue}: bertpar worker eval")
            await accepted
        except WorkflowUpdateFailedError as error:
            raise ConfigError(f"sweep {sweep_id} refused the runs: {error.cause}") from error
        except WorkflowAlreadyStartedError as error:
            raise ConfigError(f"sweep {sweep_id} has ended and takes no further runs: start another sweep") from error
        except RPCError as error:
            raise ConnectionFailedError(
                f"sweep {sweep_id} could not be submitted: {error.message}. Check that Temporal is up, and try again"
            ) from error
