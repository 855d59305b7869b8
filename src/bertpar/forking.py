"""Begins runs with the weights of another run's checkpoint: in its sweep while that runs, else in one of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from temporalio.client import Client

from bertpar.catalogue import find_and_hold
from bertpar.composing import compose_sweep, given_values
from bertpar.errors import ConfigError
from bertpar.events import CheckpointRef
from bertpar.extending import check_same_sweep, without_keys
from bertpar.holds import hold_for_fork
from bertpar.observe import find_run
from bertpar.paths import Home
from bertpar.spec import StartSpec
from bertpar.states import RunRef, RunState
from bertpar.steer import Say, update
from bertpar.store import Store
from bertpar.submit import check_fits, new_sweep_id, run_refs, submit_batch, sweep_options
from bertpar.workflows.coordinator import CoordinatorWorkflow


@dataclass(frozen=True, kw_only=True)
class Forks:
    """Runs that begin with one checkpoint's weights."""

    sweep_id: str
    run_ids: tuple[str, ...]
    forked_from: str
    """`RUN@STEP`"""


async def fork(
    client: Client,
    run_id: str,
    step: int | None,
    overrides: Sequence[str],
    home: Home,
    say: Say,
    *,
    config_dir: Path | None = None,
) -> Forks:
    """Begin runs like `run_id`, changed by `overrides`, with the weights of its checkpoint after `step` or of its best.

    Optimizer, schedule and the order of the examples begin anew. The checkpoint is kept for them.

    Raises:
        NotFoundError: no such run or checkpoint; the message lists those that exist.
        ConfigError: an override is wrong, or differs where a sweep cannot.
        RefusedError: the sweep takes no such run.
    """
    sweep, state = await find_run(client, run_id)
    store = Store(sweep.options.store_root, home.cache)
    batch = compose_sweep(
        [*(base := without_keys(state.run.overrides, overrides)), *overrides],
        home,
        config_dir=config_dir,
        first_index=len(sweep.runs) if sweep.status == "running" else 0,
    )
    if (other := batch.sweep.store_root) != sweep.options.store_root:
        raise ConfigError(f"store.root={other}: a fork needs the store of its origin, {sweep.options.store_root}")
    if sweep.status == "running":
        check_same_sweep(sweep, batch.sweep, overrides)
    check_fits(batch, home)
    sweep_id = sweep.sweep_id if sweep.status == "running" else new_sweep_id(batch.sweep.name)

    def hold(checkpoint: CheckpointRef) -> None:
        for index in range(batch.first_index, batch.first_index + len(batch.runs)):
            hold_for_fork(store, checkpoint.key, f"{sweep_id}/{index}")

    checkpoint = await asyncio.to_thread(find_and_hold, store, run_id, step, hold)
    start = StartSpec(run_id=run_id, step=checkpoint.step, key=checkpoint.key, digest=checkpoint.digest)
    batch = replace(
        batch,
        runs=tuple(replace(run, start=start) for run in batch.runs),
        given=frozenset(given_values(base)),
    )
    refs = [_named(ref, state, checkpoint) for ref in run_refs(sweep_id, batch, store)]
    if sweep.status == "running":
        steered = await update(client, sweep_id, CoordinatorWorkflow.extend, tuple(refs), say)
        run_ids = [f"{sweep_id}/{index}" for index in steered.runs]
    else:
        options = sweep_options(batch.sweep, sweep.options.temporal_ui)
        await submit_batch(client, sweep_id, batch.sweep.name, options, refs, final=True, say=say)
        run_ids = [ref.run_id for ref in refs]
    for fork_id in run_ids:  # other numbers than thought, where somebody else added runs at the same time
        await asyncio.to_thread(hold_for_fork, store, checkpoint.key, fork_id)
    return Forks(sweep_id=sweep_id, run_ids=tuple(run_ids), forked_from=f"{run_id}@{checkpoint.step}")


def _named(ref: RunRef, origin: RunState, checkpoint: CheckpointRef) -> RunRef:
    """Have the run tell its origin wherever runs are told apart by what was varied."""
    swept = {"fork": f"{origin.run.index}@{checkpoint.step}", **ref.swept}
    return replace(ref, swept=swept, forked_from=f"{origin.run.run_id}@{checkpoint.step}")
