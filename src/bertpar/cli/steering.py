"""Commands that steer a live sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertpar import paths
from bertpar.cli.asking import (
    config_dir_option,
    json_option,
    print_json,
    run_argument,
    say,
    sweep_argument,
    target_argument,
    temporal_options,
    with_run,
    with_sweep,
    with_target,
)

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.states import Priority, RunRef, Steered


@click.command(short_help="Pause SWEEP or RUN: it checkpoints and frees its slots.")
@target_argument()
@json_option
@temporal_options
def pause(target: str, as_json: bool, **where: str | None) -> None:
    """Pause a sweep, or a run (SWEEP/INDEX): what trains makes a checkpoint at its next step and frees its slot.

    Of a paused sweep nothing new starts; what is being evaluated ends. `bertpar resume` goes on from the checkpoints.
    """
    from bertpar import steer

    async def work(client: Client, name: str) -> tuple[str, Steered]:
        return name, await steer.pause(client, name, say)

    name, steered = with_target(where, target, work)
    leaving = "" if "/" in name else f", {len(steered.runs)} of its runs with a checkpoint"
    _answer(as_json, name, steered, f"{name}: pauses{leaving}; it goes on with bertpar resume {name}")


@click.command(short_help="Go on with a paused SWEEP or RUN.")
@target_argument()
@json_option
@temporal_options
def resume(target: str, as_json: bool, **where: str | None) -> None:
    """Go on with a run (SWEEP/INDEX) that is paused, or with a sweep: all of its paused runs, and what is queued.

    A sweep may have been paused by `bertpar pause`, or by itself because its first runs failed alike.
    """
    from bertpar import steer

    async def work(client: Client, name: str) -> tuple[str, Steered]:
        return name, await steer.resume(client, name, say)

    name, steered = with_target(where, target, work)
    _answer(as_json, name, steered, f"{name}: goes on; `bertpar attach {_sweep_of(name)}` follows it")


@click.command(short_help="Stop SWEEP or RUN; what is finished stays.")
@target_argument()
@json_option
@temporal_options
def cancel(target: str, as_json: bool, **where: str | None) -> None:
    """Cancel a sweep, or one run (SWEEP/INDEX) of it: trainings leave a checkpoint, what is finished stays.

    The other runs of a sweep go on without the one; it counts as completed if they all complete.
    """
    from bertpar import steer

    async def work(client: Client, name: str) -> tuple[str, bool]:
        if "/" not in name:
            return name, await steer.cancel_sweep(client, name)
        await steer.cancel_run(client, name, say)
        return name, True

    name, was_running = with_target(where, target, work)
    if as_json:
        print_json({"sweep_id": _sweep_of(name), "target": name, "cancelling": was_running})
    elif was_running:
        click.echo(f"{name}: cancelling; `bertpar status {_sweep_of(name)}` shows how far it is")
    else:
        click.echo(f"{name} has ended already: there is nothing to cancel")


@click.command(short_help="Add runs to SWEEP: lr=5e-5 seed=1,2.")
@sweep_argument()
@click.argument("overrides", nargs=-1, required=True)
@config_dir_option
@json_option
@temporal_options
def add(sweep: str, overrides: tuple[str, ...], config_dir: Path | None, as_json: bool, **where: str | None) -> None:
    """Add to a live sweep the runs that OVERRIDES describe, as for train.py; their numbers continue.

    Each is configured like the sweep's first run, but for the keys that the sweep varies: those come from OVERRIDES,
    or are the defaults.
    """
    from bertpar import extending

    async def work(client: Client, sweep_id: str) -> tuple[str, Steered, list[RunRef]]:
        steered, refs = await extending.add(client, sweep_id, overrides, paths.home(), say, config_dir=config_dir)
        return sweep_id, steered, refs

    sweep_id, steered, refs = with_sweep(where, sweep, work)
    values = [",".join(f"{key}={value}" for key, value in ref.swept.items()) for ref in refs]
    added = [f"{sweep_id}/{index}: {value}" for index, value in zip(steered.runs, values, strict=True)]
    _answer(as_json, sweep_id, steered, "\n".join(added))


@click.command(short_help="Cancel the runs of SWEEP that have these values: lr=1e-3.")
@sweep_argument()
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
@json_option
@temporal_options
def drop(sweep: str, values: tuple[str, ...], as_json: bool, **where: str | None) -> None:
    """Cancel those runs of a live sweep that are not done and match all of KEY=VALUE... (KEY=A,B: either value)."""
    from bertpar import steer

    async def work(client: Client, sweep_id: str) -> tuple[str, Steered]:
        return sweep_id, await steer.drop(client, sweep_id, values, say)

    sweep_id, steered = with_sweep(where, sweep, work)
    _answer(as_json, sweep_id, steered, "\n".join(f"{sweep_id}/{index}: cancelling" for index in steered.runs))
    for index in steered.done:
        say(f"{sweep_id}/{index} is done, and stays")


@click.command(short_help="Try a failed or cancelled RUN of a live sweep again.")
@run_argument()
@json_option
@temporal_options
def retry(run: str, as_json: bool, **where: str | None) -> None:
    """Queue RUN (SWEEP/INDEX), which failed or was cancelled, again; it goes on from its last checkpoint."""
    from bertpar import steer

    async def work(client: Client, run_id: str) -> tuple[str, Steered]:
        return run_id, await steer.retry(client, run_id, say)

    run_id, steered = with_run(where, run, work)
    _answer(as_json, run_id, steered, f"{run_id}: queued again")


@click.command(short_help="Have RUN take the next free slot: RUN high.")
@run_argument()
@click.argument("priority", type=click.Choice(["high", "normal"]))
@click.option("--preempt", is_flag=True, help="Free a slot at once: the least advanced training yields its own.")
@json_option
@temporal_options
def priority(run: str, priority: Priority, preempt: bool, as_json: bool, **where: str | None) -> None:
    """Give RUN (SWEEP/INDEX) a priority among its sweep's runs: `high` takes the next free slot.

    A training that yields with --preempt makes a checkpoint, goes back to the queue, and is started again by itself.
    """
    from bertpar import steer

    if preempt and priority != "high":
        raise click.UsageError("--preempt makes room for an urgent run: give `high`")

    async def work(client: Client, run_id: str) -> tuple[str, Steered]:
        return run_id, await steer.prioritize(client, run_id, priority, say, preempt=preempt)

    run_id, steered = with_run(where, run, work)
    room = f"; {_sweep_of(run_id)}/{steered.yields} yields its slot" if steered.yields is not None else ""
    room = room or ("; nothing has to yield" if preempt else "")
    _answer(as_json, run_id, steered, f"{run_id}: priority {priority}{room}")


@click.command("set", short_help="Change how SWEEP is run: max_parallel=4, budget.hours=8.")
@sweep_argument()
@click.argument("setting", metavar="KEY=VALUE")
@json_option
@temporal_options
def set_option(sweep: str, setting: str, as_json: bool, **where: str | None) -> None:
    """Change a setting of a live sweep: max_parallel=4, budget.hours=8; null for no limit.

    With a lower max_parallel nothing is stopped: fewer are started. budget.hours must be more than is spent.
    """
    from bertpar import steer

    async def work(client: Client, sweep_id: str) -> tuple[str, Steered]:
        return sweep_id, await steer.set_option(client, sweep_id, setting, say)

    sweep_id, steered = with_sweep(where, sweep, work)
    _answer(as_json, sweep_id, steered, f"{sweep_id}: {setting}")


def _answer(as_json: bool, name: str, steered: Steered, text: str) -> None:
    if not as_json:
        click.echo(text)
        return
    sweep_id = _sweep_of(name)

    def named(indices: tuple[int, ...]) -> list[str]:
        return [f"{sweep_id}/{index}" for index in indices]

    answer: dict[str, Any] = {"sweep_id": sweep_id, "runs": named(steered.runs), "done": named(steered.done)}
    print_json(answer | {"yields": None if steered.yields is None else f"{sweep_id}/{steered.yields}"})


def _sweep_of(name: str) -> str:
    return name.partition("/")[0]
