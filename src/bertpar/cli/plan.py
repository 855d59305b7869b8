"""The command that tells what a sweep would do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from bertpar import paths
from bertpar.cli.asking import config_dir_option, json_option, print_json, say


@click.command(short_help="Tell which runs a sweep would train; starts nothing.")
@click.argument("overrides", nargs=-1)
@config_dir_option
@json_option
def plan(overrides: tuple[str, ...], config_dir: Path | None, as_json: bool) -> None:
    """Tell of each run of `python train.py -m OVERRIDES` whether it is NEW, CACHED, to RESUME, or a DUPLICATE.

    NEW runs are told with what keeps the nearest known run from being taken: which part of the key differs (config,
    code, data, model, versions). Times are estimated from the runs in the store. Data is prepared if that was not done
    before; nothing is trained.
    """
    from bertpar.composing import compose_sweep
    from bertpar.follow import make_console
    from bertpar.plans import make_plan, show_plan

    home = paths.home()
    batch = compose_sweep(list(overrides), home, config_dir=config_dir)
    planned = asyncio.run(make_plan(batch, home, say))
    if as_json:
        print_json([run.as_json() for run in planned])
    else:
        make_console().print(show_plan(planned), highlight=False)
