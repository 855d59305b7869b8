"""The command that trains a run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import json_option, print_json, run_argument, say, temporal_options, with_run

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.reproduction import Reproduction

_MAX_LINES = 20


@click.command(short_help="Train RUN (SWEEP/INDEX) again, and compare bit for bit.")
@run_argument()
@json_option
@temporal_options
def reproduce(run: str, as_json: bool, **where: str | None) -> int:
    """Train RUN (SWEEP/INDEX) again as it was submitted, reusing nothing, and compare the results bit for bit.

    Says IDENTICAL, or where the results part and what differs around them: code, packages, machine, data, model. The
    exit code is 0 only if all is identical. Ctrl-C leaves the repetition running, as a sweep of its own.
    """
    from bertpar import reproduction
    from bertpar.client import temporal_spec
    from bertpar.follow import follow_runs
    from bertpar.patience import PatientClient

    async def work(client: Client, run_id: str) -> Reproduction:
        home = paths.home()
        again_id = await reproduction.begin(client, run_id, home, say)
        sweep_id = again_id.rpartition("/")[0]
        say(f"{run_id} is trained again as {again_id}")
        if as_json:
            await client.get_workflow_handle(sweep_id).result()
        else:
            await follow_runs(PatientClient(client, temporal_spec(**where), home), sweep_id, None, 0.5, home)
        return await reproduction.compare(client, run_id, again_id, home)

    found = with_run(where, run, work)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)
    return 0 if found.identical else 1


def _show(found: Reproduction) -> None:
    for phrase in found.surroundings:
        click.echo(f"  differs: {phrase}")
    for phrase in found.differences[:_MAX_LINES]:
        click.echo(f"  {phrase}")
    if len(found.differences) > _MAX_LINES:
        click.echo(f"  and {len(found.differences) - _MAX_LINES} more")
    verdict = "IDENTICAL" if found.identical else "DIFFERENT: the first value is the original's"
    click.echo(f"{verdict}  ({found.run_id} and {found.repeated_by})")
