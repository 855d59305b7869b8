"""The command that begins a run with another run's weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import config_dir_option, json_option, print_json, run_argument, say, temporal_options, with_run

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.forking import Forks


@click.command(short_help="Begin a run with the weights of RUN[@STEP].")
@run_argument()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE...]")
@config_dir_option
@json_option
@temporal_options
def fork(run: str, overrides: tuple[str, ...], config_dir: Path | None, as_json: bool, **where: str | None) -> None:
    """Begin a run with the weights of the checkpoint RUN[@STEP] (default: the best), configured like RUN but KEY=VALUE.

    Optimizer, schedule and the order of the examples begin anew. Several values (lr=1e-6,1e-5) begin several runs. They
    join RUN's sweep while that runs, and are a sweep of their own after it. `bertpar gc` keeps the checkpoint for them.
    """
    from bertpar import forking
    from bertpar.naming import split_step

    name, step = split_step(run)

    async def work(client: Client, run_id: str) -> Forks:
        return await forking.fork(client, run_id, step, overrides, paths.home(), say, config_dir=config_dir)

    forks = with_run(where, name, work)
    if as_json:
        print_json({"sweep_id": forks.sweep_id, "runs": list(forks.run_ids), "forked_from": forks.forked_from})
        return
    for fork_id in forks.run_ids:
        click.echo(f"{fork_id}: begins with the weights of {forks.forked_from}; bertpar attach {forks.sweep_id}")
