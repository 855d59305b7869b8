"""What commands share: where Temporal is, ids that may be shortened and complete themselves, and answers as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bertpar import paths
from bertpar.cli.completion import complete_run, complete_sweep, complete_target

if TYPE_CHECKING:
    from temporalio.client import Client

T = TypeVar("T")
Command = Callable[..., T]
Where = dict[str, str | None]
"""The values of `temporal_options`."""

config_dir_option = click.option(
    "--config-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with YAML of your own, as for train.py.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


def temporal_options(command: Command[T]) -> Command[T]:
    """Let a command say which cluster it means; without these it is the environment's, else the local stack."""
    for option in (
        click.option("--profile", help="Profile in Temporal's own client configuration (TLS, API key)."),
        click.option("--namespace", help="Default: TEMPORAL_NAMESPACE, the profile's, or 'default'."),
        click.option("--address", help="host:port of the cluster. Default: TEMPORAL_ADDRESS, else the local stack."),
    ):
        command = option(command)
    return command


def sweep_argument(*, required: bool = True) -> Callable[[Command[T]], Command[T]]:
    """Return the decorator for the argument SWEEP, which `with_sweep` takes."""
    return click.argument("sweep", required=required, shell_complete=complete_sweep)


def sweeps_argument() -> Callable[[Command[T]], Command[T]]:
    """Return the decorator for one or more arguments SWEEP, which `with_sweeps` takes as `sweeps`."""
    return click.argument("sweeps", nargs=-1, required=True, metavar="SWEEP [SWEEP...]", shell_complete=complete_sweep)


def run_argument() -> Callable[[Command[T]], Command[T]]:
    """Return the decorator for the argument RUN, which `with_run` takes."""
    return click.argument("run", shell_complete=complete_run)


def target_argument() -> Callable[[Command[T]], Command[T]]:
    """Return the decorator for the argument SWEEP|RUN, which `with_target` takes as `target`."""
    return click.argument("target", metavar="SWEEP|RUN", shell_complete=complete_target)


def refuse_without_sweep(where: Where) -> None:
    """Refuse options that say where a sweep is, where none is named."""
    if any(where.values()):
        raise click.UsageError("--address, --namespace and --profile say where SWEEP is: name a SWEEP")


def with_client(where: Where, work: Callable[[Client], Awaitable[T]]) -> T:
    """Connect and do `work`; an outage after the connection is the user's message, not a traceback."""
    from bertpar.client import ask_once, temporal_spec

    return asyncio.run(ask_once(temporal_spec(**where), paths.home(), work, on_wait=say))


def with_sweep(where: Where, text: str, work: Callable[[Client, str], Awaitable[T]]) -> T:
    """Connect, and do `work` with the id of the sweep that `text` stands for."""
    from bertpar.naming import resolve_sweep

    return _with_resolved(where, text, resolve_sweep, work)


def with_sweeps(where: Where, texts: Sequence[str], work: Callable[[Client, list[str]], Awaitable[T]]) -> T:
    """Connect, and do `work` with the ids of the sweeps that `texts` stand for."""
    from bertpar.naming import resolve_sweep

    async def resolve_and_work(client: Client) -> T:
        return await work(client, [await resolve_sweep(client, text) for text in texts])

    return with_client(where, resolve_and_work)


def with_run(where: Where, text: str, work: Callable[[Client, str], Awaitable[T]]) -> T:
    """Connect, and do `work` with the id of the run that `text` stands for."""
    from bertpar.naming import resolve_run

    return _with_resolved(where, text, resolve_run, work)


def with_target(where: Where, text: str, work: Callable[[Client, str], Awaitable[T]]) -> T:
    """Connect, and do `work` with the id of the sweep or run that `text` stands for."""
    from bertpar.naming import resolve_target

    return _with_resolved(where, text, resolve_target, work)


def _with_resolved(
    where: Where,
    text: str,
    resolve: Callable[[Client, str], Awaitable[str]],
    work: Callable[[Client, str], Awaitable[T]],
) -> T:
    async def resolve_and_work(client: Client) -> T:
        return await work(client, await resolve(client, text))

    return with_client(where, resolve_and_work)


def print_json(value: Any) -> None:
    """Print the public form of an answer, for scripts."""
    click.echo(json.dumps(value, indent=1))


def say(message: str) -> None:
    """Tell a person something, apart from the answer."""
    click.echo(message, err=True)
