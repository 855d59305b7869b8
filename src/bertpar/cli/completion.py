"""Shell completion: of SWEEP and RUN by asking Temporal, and the command that prints the shell's script for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import psutil
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.listing import SweepChain

_PATIENCE_SECONDS = 0.95
"""Since the start of this process, whose imports take the most of it: a person waits for a second at most."""

_MAX_OFFERED = 50

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command(short_help="Print the shell's script for completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that has SHELL complete commands, options, SWEEP and RUN.

    \b
    bash: echo 'eval "$(bertpar completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(bertpar completion zsh)"' >> ~/.zshrc
    fish: bertpar completion fish > ~/.config/fish/completions/bertpar.fish
    """
    from click.shell_completion import get_completion_class

    from bertpar.cli import cli

    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(cli, {}, "bertpar", "_BERTPAR_COMPLETE").source())


def complete_sweep(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the sweeps that the unfinished text may stand for, the newest first."""
    return _ask(ctx, lambda client: _sweeps(client, incomplete))


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the runs of the sweep that the unfinished text stands for, or the sweeps while those are several."""
    return _ask(ctx, lambda client: _runs(client, incomplete))


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return sweeps, and runs behind a slash."""
    return (complete_run if "/" in incomplete else complete_sweep)(ctx, param, incomplete)


async def _sweeps(client: Client, incomplete: str) -> list[CompletionItem]:
    return [_item(chain) for chain in await _matching_chains(client, incomplete)]


async def _runs(client: Client, incomplete: str) -> list[CompletionItem]:
    from bertpar.answers import query
    from bertpar.workflows.coordinator import CoordinatorWorkflow
    from bertpar.workflows.records import run_name

    sweep, slash, index = incomplete.partition("/")
    chains = await _matching_chains(client, sweep)
    if len(chains) != 1:
        return [] if slash else [_item(chain) for chain in chains]
    status = await query(client, chains[0].sweep_id, CoordinatorWorkflow.status)
    runs = [state.run for state in status.runs if str(state.run.index).startswith(index)]
    return [CompletionItem(run.run_id, help=run_name(run.swept, run.index)) for run in runs[:_MAX_OFFERED]]


async def _matching_chains(client: Client, text: str) -> list[SweepChain]:
    from bertpar.listing import list_chains
    from bertpar.naming import matching

    chains = {chain.sweep_id: chain for chain in await list_chains(client)}
    found = matching(text, list(chains)) if text else list(chains)
    return [chains[sweep_id] for sweep_id in found[:_MAX_OFFERED]]


def _item(chain: SweepChain) -> CompletionItem:
    live = "running, " if chain.is_live else ""
    return CompletionItem(chain.sweep_id, help=f"{live}started {chain.started_at.astimezone():%Y-%m-%d %H:%M}")


def _ask(ctx: click.Context, work: Callable[[Client], Awaitable[list[CompletionItem]]]) -> list[CompletionItem]:
    """Return what `work` finds; nothing, and no word about it, where Temporal is not up or does not answer in time."""
    found: list[CompletionItem] = []

    async def connect_and_work() -> None:
        from bertpar import paths
        from bertpar.client import connect_if_up, temporal_spec

        where = {key: ctx.params.get(key) for key in ("address", "namespace", "profile")}
        if (client := await connect_if_up(temporal_spec(**where), paths.home())) is not None:
            found.extend(await work(client))

    def ask() -> None:
        with suppress(BaseException):  # a shell's prompt is no place for errors
            asyncio.run(connect_and_work())

    # In a thread that may be left behind: connecting cannot be interrupted.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(0.0, psutil.Process().create_time() + _PATIENCE_SECONDS - time.time()))
    return list(found)
