"""Commands for the local stack, and for workers on other machines."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertpar import paths
from bertpar.cli.asking import json_option, print_json, say
from bertpar.paths import Home

if TYPE_CHECKING:
    from bertpar.worker import WorkerKind


def describe_stack(home: Home) -> dict[str, Any]:
    """Return the public facts about the local stack, as `bertpar status --json` prints them."""
    from bertpar import stack

    running = stack.read(home)
    if running is None:
        return {"state": "down", "home": str(home.root), "pids": {}}
    return {
        "state": running.state,
        "home": str(home.root),
        "temporal_address": running.temporal_address,
        "namespace": running.namespace,
        "temporal_ui": running.temporal_ui,
        "temporal_version": running.temporal_version,
        "mlflow_tracking_uri": running.mlflow_tracking_uri,
        "mlflow_ui": running.mlflow_ui,
        "store": running.store,
        "slots": running.slots,
        "pids": running.pids,
        "failures": running.failures,
        "outdated": stack.runs_other_code(running),
        "notes": list(running.notes),
    }


def print_stack(description: dict[str, Any]) -> None:
    """Print what `describe_stack` returned, for people."""
    if description["state"] == "down":
        click.echo(f"local stack: down ({description['home']})")
        return
    click.echo(f"local stack: {description['state']}, {description['slots']} training slots")
    rows = [
        ("home", description["home"]),
        ("Temporal", f"{description['temporal_address']}, namespace {description['namespace']}"),
        ("  page", description["temporal_ui"]),
        ("MLflow", description["mlflow_tracking_uri"]),
        ("  page", description["mlflow_ui"] or "not started: bertpar ui"),
        ("store", description["store"]),
        ("pids", ", ".join(f"{role} {pid}" for role, pid in description["pids"].items())),
    ]
    for label, value in rows:
        click.echo(f"  {label:<10}{value}")
    for role, count in description["failures"].items():
        click.echo(f"  {role} ended {count} times in a row: see {description['home']}/logs/{role}.log")
    for note in description["notes"]:
        click.echo(f"  note: {note}")
    if description["outdated"]:
        click.echo("  note: bertpar's code has changed since the start; to load it: bertpar down, bertpar up")


@click.command()
@click.option("--slots", type=int, help="Slots: runs that train at once. Default: one per GPU, else one per CPU.")
@click.option("--port", type=int, help="Port of the Temporal server. Default: a free one, kept from then on.")
@click.option("--ui-port", type=int, help="Port of Temporal's web page. Default: likewise.")
@json_option
def up(slots: int | None, port: int | None, ui_port: int | None, as_json: bool) -> None:
    """Start the local stack, or show the one that runs. Unfinished sweeps go on."""
    from bertpar import stack

    home = paths.home()
    stack.ensure_up(home, slots=slots, port=port, ui_port=ui_port, on_wait=say)
    description = describe_stack(home)
    if as_json:
        print_json(description)
    else:
        print_stack(description)


@click.command()
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds until it is killed.")
@json_option
def down(timeout: float, as_json: bool) -> None:
    """Stop the local stack. Unfinished sweeps are kept and go on with the next start."""
    from bertpar import stack

    was_running = stack.down(paths.home(), timeout_seconds=timeout)
    if as_json:
        print_json({"state": "down", "was_running": was_running})
        return
    click.echo("local stack stopped" if was_running else "no local stack was running")


@click.command(short_help="Work for a Temporal cluster until SIGTERM.")
@click.argument("kind", type=click.Choice(["training", "eval"]))
@click.option("--address", help="host:port of the cluster. Default: TEMPORAL_ADDRESS or the Temporal profile.")
@click.option("--namespace", help="Default: TEMPORAL_NAMESPACE, the profile's, or 'default'.")
@click.option("--profile", help="Profile in Temporal's own client configuration (TLS, API key).")
@click.option("--queue", help="Task queue; eval serves QUEUE-tracking too. Default: as conf/temporal/default.yaml.")
@click.option(
    "--slots", type=click.IntRange(min=1), help="Runs that compute at once. Default: one per GPU, else one per CPU."
)
@click.option("--grace", type=float, default=20.0, show_default=True, help="Seconds that work has to end at a stop.")
@click.option("--ready-file", type=click.Path(path_type=Path), hidden=True)
def worker(kind: WorkerKind, **options: Any) -> None:
    """Work for a Temporal cluster until SIGTERM: `training` trains, `eval` does all the rest."""
    import asyncio
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_work(kind, **options))


async def _work(
    kind: WorkerKind,
    *,
    address: str | None,
    namespace: str | None,
    profile: str | None,
    queue: str | None,
    slots: int | None,
    grace: float,
    ready_file: Path | None,
) -> None:
    from bertpar import worker as workers
    from bertpar.client import connect_to_cluster

    client = await workers.connect_patiently(lambda: connect_to_cluster(address, namespace, profile))
    await workers.run_worker(
        kind,
        client,
        queue=queue or workers.DEFAULT_QUEUES[kind],
        num_slots=slots or workers.default_slots(kind),
        grace=timedelta(seconds=grace),
        ready_file=ready_file,
    )
