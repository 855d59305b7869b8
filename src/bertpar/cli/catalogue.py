"""Commands on what the store keeps: the catalogue of checkpoints, pins, and garbage collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import (
    Where,
    json_option,
    print_json,
    run_argument,
    say,
    target_argument,
    temporal_options,
    with_client,
    with_target,
)
from bertpar.errors import NotFoundError

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.catalogue import RunCatalogue
    from bertpar.collection import Collection
    from bertpar.events import CheckpointRef
    from bertpar.store import Store

store_option = click.option(
    "--store", "store_root", help="Look into this store alone, without Temporal: for sweeps that it has forgotten."
)


@click.command(short_help="List the checkpoints of SWEEP or RUN, and why each is kept.")
@target_argument()
@store_option
@json_option
@temporal_options
def checkpoints(target: str, store_root: str | None, as_json: bool, **where: str | None) -> None:
    """List the checkpoints of SWEEP or RUN that exist, and why each is kept.

    What is kept for nothing goes with `bertpar gc`. best: scored on the test split, or the best so far of an unfinished
    run, which also keeps the last, and what it is resumable from if that is damaged.
    """
    _, runs = _read(target, store_root, where)
    if as_json:
        print_json([entry.as_json() for run in runs for entry in run.entries])
        return
    for run in runs:
        _print_run(run)


@click.command(short_help="Keep a checkpoint of RUN, whatever prunes or gc would do.")
@run_argument()
@store_option
@json_option
@temporal_options
def pin(run: str, store_root: str | None, as_json: bool, **where: str | None) -> None:
    """Keep the checkpoint RUN[@STEP] (default: the best) until it is unpinned.

    Neither its run's own pruning nor `bertpar gc` deletes it then, on any machine: the pin lies in the store.
    """
    from bertpar import holds
    from bertpar.catalogue import find_and_hold

    store, run_id, step = _find_run(run, store_root, where)
    checkpoint = find_and_hold(store, run_id, step, lambda found: holds.pin(store, found.key))
    _answer(checkpoint, "pinned", as_json)


@click.command(short_help="No longer keep a pinned checkpoint of RUN.")
@run_argument()
@store_option
@json_option
@temporal_options
def unpin(run: str, store_root: str | None, as_json: bool, **where: str | None) -> None:
    """No longer keep the pinned checkpoint RUN[@STEP] (default: the best)."""
    from bertpar import holds
    from bertpar.catalogue import read_uses, read_whole_catalogue

    store, run_id, step = _find_run(run, store_root, where)
    checkpoint = read_whole_catalogue(store, run_id, read_uses(store)).find(step)
    was_pinned = holds.unpin(store, checkpoint.key)
    _answer(checkpoint, "unpinned" if was_pinned else "was not pinned", as_json)


@click.command(short_help="Delete what nobody needs; without --yes only say what.")
@click.option("--yes", is_flag=True, help="Delete it. Without this nothing is.")
@click.option("--abandoned", is_flag=True, help="Also give up runs that ended without a result and could go on.")
@click.option("--unknown", is_flag=True, help="Take sweeps that this Temporal does not know for ended.")
@click.option(
    "--prediction-days",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Keep inputs and outputs of `bertpar predict` in the store for so many days.",
)
@click.option("--store", "store_root", help="The store. Default: the home's own.")
@json_option
@temporal_options
def gc(
    yes: bool,
    abandoned: bool,
    unknown: bool,
    prediction_days: float,
    store_root: str | None,
    as_json: bool,
    **where: str | None,
) -> None:
    """Delete what nobody needs from the store; without --yes only print what, why, and how much that frees.

    That is: checkpoints that nothing keeps (see `bertpar checkpoints`), data that no checkpoint was trained on, files
    of predictions that were handed over, what was set aside as damaged, and leftovers of killed processes. Nothing of a
    sweep that is running, by Temporal, which has to answer; never a best, a pin, or what a fork began from.
    """
    import time

    from bertpar.catalogue import sweeps_in
    from bertpar.collection import CollectionOptions, collect, plan_collection
    from bertpar.usage import ask_usage

    store = _store(store_root)
    options = CollectionOptions(abandoned=abandoned, unknown=unknown, prediction_days=prediction_days)

    async def work(client: Client) -> Collection:
        usage = await ask_usage(client, sweeps_in(store))
        planned = plan_collection(store, usage, options, time.time())
        if not yes:
            return planned
        return await collect(store, planned, lambda sweeps: ask_usage(client, sweeps), options)

    collection = with_client(where, work)
    if as_json:
        print_json(
            {
                "store": store.root,
                "deleted": yes,
                "num_bytes": collection.num_bytes,
                "garbage": [item.as_json() for item in collection.garbage],
                "spared": [vars(spared) for spared in collection.spared],
            }
        )
    else:
        _print_collection(collection, deleted=yes)


# --- finding ------------------------------------------------------------------------------------------------


def _read(target: str, store_root: str | None, where: Where) -> tuple[Store, list[RunCatalogue]]:
    """Return the store that has the target's runs, and what it has of them."""
    from bertpar.catalogue import read_uses, read_whole_catalogue

    store, run_ids = _find(target, store_root, where)
    uses = read_uses(store)
    return store, [read_whole_catalogue(store, run_id, uses) for run_id in run_ids]


def _find(target: str, store_root: str | None, where: Where) -> tuple[Store, list[str]]:
    """Return the store that has the target's runs, and their names.

    Of a sweep that Temporal does not know, the home's own store is asked.
    """
    if store_root is None:
        return _ask_temporal_first(target, where)
    store = _store(store_root)
    return store, _runs_in_store(store, target)


def _ask_temporal_first(target: str, where: Where) -> tuple[Store, list[str]]:
    try:
        store_root, run_ids = with_target(where, target, _ask_for_runs)
    except NotFoundError as error:
        store = _store(None)
        try:
            run_ids = _runs_in_store(store, target)
        except NotFoundError:
            raise error from None
        say(f"Temporal does not know {target} (any more); this is what {store.root} has of it")
        return store, run_ids
    return _store(store_root), run_ids


def _runs_in_store(store: Store, target: str) -> list[str]:
    from bertpar.catalogue import runs_in, sweeps_in
    from bertpar.naming import LAST, choose, split_run

    run = split_run(target)
    sweep, sweeps = target if run is None else run[0], sweeps_in(store)
    if sweep == LAST:
        known = ", ".join(sweeps) or "no sweeps"
        raise NotFoundError(f"which sweep is the last, only Temporal knows; store {store.root} has: {known}")
    run_ids = runs_in(store, choose(sweep, sweeps))
    if run is None:
        return run_ids
    wanted = [run_id for run_id in run_ids if run_id.endswith(f"/{run[1]}")]
    if not wanted:
        raise NotFoundError(f"store {store.root} has nothing of {target}; it has: {', '.join(run_ids)}")
    return wanted


async def _ask_for_runs(client: Client, target: str) -> tuple[str, list[str]]:
    """Return the store of a sweep, or of a run's, and the runs that are meant."""
    from bertpar.answers import query
    from bertpar.naming import split_run
    from bertpar.observe import find_run
    from bertpar.workflows.coordinator import CoordinatorWorkflow

    if split_run(target) is not None:
        sweep, state = await find_run(client, target)
        return sweep.options.store_root, [state.run.run_id]
    sweep = await query(client, target, CoordinatorWorkflow.status)
    return sweep.options.store_root, [state.run.run_id for state in sweep.runs]


def _store(root: str | None) -> Store:
    from bertpar.store import Store

    home = paths.home()
    return Store(root or str(home.store), home.cache)


def _find_run(text: str, store_root: str | None, where: Where) -> tuple[Store, str, int | None]:
    """Return the run that RUN[@STEP] names, with its store before it and the step, if any, after it.

    Raises:
        NotFoundError: it does not exist, or names several.
    """
    from bertpar.naming import split_step

    run, step = split_step(text)
    store, run_ids = _find(run, store_root, where)
    if len(run_ids) != 1:
        raise NotFoundError(f"{run} has {len(run_ids)} runs: name one of them, for example {run}/0")
    return store, run_ids[0], step


# --- telling ------------------------------------------------------------------------------------------------


def _answer(checkpoint: CheckpointRef, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"key": checkpoint.key, "step": checkpoint.step, "pinned": what == "pinned"})
    else:
        click.echo(f"step {checkpoint.step} {what}: {checkpoint.key}")


def _print_run(run: RunCatalogue) -> None:
    click.echo(f"run {run.run_id}: {'finished' if run.is_finished else 'not finished'}")
    for entry in run.entries:
        checkpoint = entry.checkpoint
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in sorted(checkpoint.metrics.items()))
        click.echo(
            f"  step {checkpoint.step:>7}  {_size(checkpoint.num_bytes):>9}  sha256:{checkpoint.digest[:12]}  "
            f"kept: {', '.join(entry.kept_because) or 'nothing keeps it'}\n"
            f"    {checkpoint.key}" + (f"  {metrics}" if metrics else "")
        )
    if run.collected_steps:
        click.echo(f"  deleted by bertpar gc: step {', '.join(map(str, run.collected_steps))}")
    if not run.entries and not run.collected_steps:
        click.echo("  no checkpoint")


def _print_collection(collection: Collection, *, deleted: bool) -> None:
    for item in collection.garbage:
        click.echo(f"{item.kind:<10}  {_size(item.num_bytes):>9}  {item.key}: {item.why}")
    for spared in collection.spared:
        click.echo(f"kept: {_size(spared.num_bytes)} of {spared.what}: {spared.why}")
    freed = f"{_size(collection.num_bytes)} in {len(collection.garbage)} places"
    if not collection.garbage:
        click.echo("nothing to delete")
    elif deleted:
        click.echo(f"freed {freed}")
    else:
        click.echo(f"would free {freed}; to do it: bertpar gc --yes")


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"
