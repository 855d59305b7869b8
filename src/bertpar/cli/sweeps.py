"""Commands on sweeps and runs."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertpar import paths
from bertpar.cli.asking import (
    json_option,
    print_json,
    refuse_without_sweep,
    run_argument,
    say,
    sweep_argument,
    temporal_options,
    with_client,
    with_run,
    with_sweep,
)
from bertpar.cli.stack import describe_stack, print_stack
from bertpar.errors import DataError

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.observe import SweepView

_SWEEP_LINE = "{:<44} {:<10} {:>5}  {}"


@click.command(short_help="A sweep's runs, or the local stack.")
@sweep_argument(required=False)
@json_option
@temporal_options
def status(sweep: str | None, as_json: bool, **where: str | None) -> int:
    """Show a sweep's runs; without SWEEP the local stack, started again if it died.

    The exit code is 0 unless a run failed or was cancelled.
    """
    if sweep is None:
        refuse_without_sweep(where)
        from bertpar import stack

        home = paths.home()
        stack.heal(home, on_wait=say)
        description = describe_stack(home)
        if as_json:
            print_json(description)
        else:
            print_stack(description)
        return 0
    from bertpar.follow import make_console, show_ranking
    from bertpar.observe import observe
    from bertpar.render import causes, live_table

    view = with_sweep(where, sweep, observe)
    if as_json:
        print_json(view.as_json())
    elif view.sweep.status == "running":
        console = make_console()
        console.print(f"sweep {view.sweep.sweep_id}: running", highlight=False)
        console.print(live_table(view), highlight=False)
        for line in causes(view):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    else:
        show_ranking(view, paths.home(), with_causes=True)
    return 0 if view.sweep.status in ("running", "completed") else 1


@click.command()
@sweep_argument()
@click.option(
    "--poll", type=click.FloatRange(min=0.05), default=0.5, show_default=True, help="Seconds between two looks."
)
@json_option
@temporal_options
def attach(sweep: str, poll: float, as_json: bool, **where: str | None) -> int:
    """Follow a sweep to its end. Ctrl-C leaves it running; the exit code is 0 only if every run completed.

    With --json what is shown meanwhile goes to standard error, and the sweep as it ended to standard output.
    """
    from bertpar.client import temporal_spec
    from bertpar.follow import follow_runs, say_goodbye
    from bertpar.patience import PatientClient

    async def follow(client: Client, sweep_id: str) -> SweepView:
        nonlocal sweep
        sweep = sweep_id
        home = paths.home()
        return await follow_runs(PatientClient(client, temporal_spec(**where), home), sweep, None, poll, home)

    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            view = with_sweep(where, sweep, follow)
    except KeyboardInterrupt:
        say_goodbye(sweep)
        raise
    if as_json:
        print_json(view.as_json())
    return 0 if view.sweep.status == "completed" else 1


@click.command(short_help="Predict texts with RUN (SWEEP/INDEX).")
@run_argument()
@click.option("--text", "texts", multiple=True, help="A text to predict; may be given several times.")
@click.option("--text-pair", "pairs", multiple=True, help="The second text of each --text, for pair models.")
@click.option("--file", "file", type=click.Path(path_type=Path), help='JSONL with {"text": ...} objects.')
@click.option("--out", type=click.Path(path_type=Path), help="Write JSONL here instead of printing.")
@click.option("--step", type=int, help="Use the checkpoint of this step instead of the best.")
@temporal_options
def predict(
    run: str,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    file: Path | None,
    out: Path | None,
    step: int | None,
    **where: str | None,
) -> None:
    """Predict texts with RUN (SWEEP/INDEX); prints one JSON object a line."""
    from bertpar.predictions import predict, read_examples

    if bool(texts) == bool(file):
        raise click.UsageError("give either --text (several times if need be) or --file")
    if pairs and len(pairs) != len(texts):
        raise click.UsageError(f"{len(texts)} --text but {len(pairs)} --text-pair")
    for option, given in (("--text", texts), ("--text-pair", pairs)):
        if not all(text.strip() for text in given):
            raise DataError(f"{option} is empty: give a text")
    if out is not None and file is not None and out.resolve() == file.resolve():
        raise DataError(f"--out {out} would overwrite --file {file}: give another file")
    if out is not None and not out.resolve().parent.is_dir():
        raise DataError(f"--out {out}: folder {out.resolve().parent} does not exist")
    if out is not None and out.is_dir():
        raise DataError(f"--out {out} is a folder; give a file in it: --out {out / 'out.jsonl'}")
    examples: list[dict[str, Any]] = [{"text": text} for text in texts] if file is None else read_examples(file)
    for example, pair in zip(examples, pairs, strict=False):
        example["text_pair"] = pair
    cache = paths.home().cache
    predicted = with_run(where, run, lambda client, run_id: predict(client, run_id, examples, cache, step))
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in predicted)
    if out is None:
        click.echo(lines, nl=False)
    else:
        out.write_text(lines, encoding="utf-8")
        click.echo(f"{len(predicted)} predictions in {out}", err=True)


@click.command()
@json_option
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@temporal_options
def ls(as_json: bool, limit: int, **where: str | None) -> None:
    """List the sweeps, newest first."""
    from bertpar.listing import list_sweeps

    sweeps = with_client(where, lambda client: list_sweeps(client, limit))
    if as_json:
        print_json([sweep.as_json() for sweep in sweeps])
    elif sweeps:
        zone = sweeps[0].started_at.astimezone().tzname()
        click.echo(_SWEEP_LINE.format("sweep", "status", "runs", f"started ({zone})"))
        for sweep in sweeps:
            started = sweep.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            num_runs = "" if sweep.num_runs is None else sweep.num_runs
            click.echo(_SWEEP_LINE.format(sweep.sweep_id, sweep.status, num_runs, started))
    else:
        click.echo("no sweeps yet: python train.py -m lr=5e-5,2e-4", err=True)
