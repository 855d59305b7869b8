"""Commands on sweeps and runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bertpar import paths
from bertpar.cli.stack import describe_stack, print_stack
from bertpar.errors import ConnectionFailedError, DataError, NotFoundError

if TYPE_CHECKING:
    from temporalio.client import Client

    from bertpar.observe import SweepView

T = TypeVar("T")

_SWEEP_LINE = "{:<44} {:<10} {:>5}  {}"


def temporal_options(command: Callable[..., T]) -> Callable[..., T]:
    """Let a command say which cluster it means; without these it is the environment's, else the local stack."""
    for option in (
        click.option("--profile", help="Profile in Temporal's own client configuration (TLS, API key)."),
        click.option("--namespace", help="Default: TEMPORAL_NAMESPACE, the profile's, or 'default'."),
        click.option("--address", help="host:port of the cluster. Default: TEMPORAL_ADDRESS, else the local stack."),
    ):
        command = option(command)
    return command


def refuse_without_sweep(where: dict[str, str | None]) -> None:
    """Refuse options that say where a sweep is, where none is named."""
    if any(where.values()):
        raise click.UsageError("--address, --namespace and --profile say where SWEEP is: name a SWEEP")


def with_client(where: dict[str, str | None], work: Callable[[Client], Awaitable[T]]) -> T:
    """Connect and do `work`; an outage after the connection is the user's message, not a traceback."""
    from temporalio.service import RPCError

    from bertpar.client import connect, temporal_spec

    async def run() -> T:
        client = await connect(temporal_spec(**where), paths.home(), on_wait=_say)
        try:
            return await work(client)
        except RPCError as error:
            raise ConnectionFailedError(
                f"Temporal does not answer: {error.message}. Is it up, and does a worker run on its evaluation queue? "
                "(bertpar status; on a cluster: bertpar worker eval)"
            ) from error

    return asyncio.run(run())


@click.command(short_help="A sweep's runs, or the local stack.")
@click.argument("sweep", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@temporal_options
def status(sweep: str | None, as_json: bool, **where: str | None) -> int:
    """Show a sweep's runs; without SWEEP the local stack, started again if it died.

    The exit code is 0 unless a run failed or was cancelled.
    """
    if sweep is None:
        refuse_without_sweep(where)
        from bertpar import stack

        home = paths.home()
        stack.heal(home, on_wait=_say)
        description = describe_stack(home)
        if as_json:
            click.echo(json.dumps(description, indent=1))
        else:
            print_stack(description)
        return 0
    from bertpar.follow import make_console, show_ranking
    from bertpar.observe import observe
    from bertpar.render import causes, live_table

    view = with_client(where, lambda client: observe(client, sweep))
    if as_json:
        click.echo(json.dumps(view.as_json(), indent=1))
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
@click.argument("sweep")
@click.option(
    "--poll", type=click.FloatRange(min=0.05), default=0.5, show_default=True, help="Seconds between two looks."
)
@temporal_options
def attach(sweep: str, poll: float, **where: str | None) -> int:
    """Follow a sweep to its end. Ctrl-C leaves it running; the exit code is 0 only if every run completed."""
    from bertpar.client import temporal_spec
    from bertpar.follow import follow_runs, say_goodbye
    from bertpar.patience import PatientClient

    async def follow(client: Client) -> SweepView:
        home = paths.home()
        return await follow_runs(PatientClient(client, temporal_spec(**where), home), sweep, None, poll, home)

    try:
        view = with_client(where, follow)
    except KeyboardInterrupt:
        say_goodbye(sweep)
        raise
    return 0 if view.sweep.status == "completed" else 1


@click.command(short_help="Go on with a sweep that has paused.")
@click.argument("sweep")
@temporal_options
def resume(sweep: str, **where: str | None) -> None:
    """Start the queued runs of a sweep that has paused, because its first runs failed alike."""
    from temporalio.client import WorkflowUpdateFailedError
    from temporalio.service import RPCError, RPCStatusCode

    from bertpar.workflows.coordinator import CoordinatorWorkflow

    async def resume(client: Client) -> None:
        try:
            await client.get_workflow_handle(sweep).execute_update(CoordinatorWorkflow.resume)
        except WorkflowUpdateFailedError as error:
            raise NotFoundError(str(error.cause)) from error
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise NotFoundError(f"{sweep} does not exist or has ended; `bertpar ls` lists the sweeps") from error

    with_client(where, resume)
    click.echo(f"{sweep}: goes on; `bertpar attach {sweep}` follows it")


@click.command(short_help="Stop a sweep; what is finished stays.")
@click.argument("sweep")
@temporal_options
def cancel(sweep: str, **where: str | None) -> None:
    """Cancel a sweep: running trainings stop, what is finished stays."""
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.service import RPCError, RPCStatusCode

    from bertpar.observe import unknown_sweep

    async def cancel(client: Client) -> bool:
        handle = client.get_workflow_handle(sweep)
        try:
            described = await handle.describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise unknown_sweep(sweep) from error
        if described.workflow_type != "CoordinatorWorkflow":
            raise NotFoundError(f"{sweep} is a part of a sweep; `bertpar ls` lists the sweeps, which can be cancelled")
        running = described.status == WorkflowExecutionStatus.RUNNING
        if running:
            await handle.cancel()
        return running

    if with_client(where, cancel):
        click.echo(f"{sweep}: cancelling; `bertpar status {sweep}` shows how far it is")
    else:
        click.echo(f"{sweep} has ended already: there is nothing to cancel")


@click.command(short_help="List the checkpoints of RUN (SWEEP/INDEX).")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@temporal_options
def checkpoints(run: str, as_json: bool, **where: str | None) -> None:
    """List the checkpoints that RUN (SWEEP/INDEX) can be resumed from."""
    from bertpar.observe import checkpoints_of

    found = with_client(where, lambda client: checkpoints_of(client, run))
    if as_json:
        click.echo(json.dumps([vars(checkpoint) for checkpoint in found], indent=1))
        return
    if not found:
        click.echo(f"{run} has no checkpoint yet", err=True)
    for checkpoint in found:
        metrics = "  ".join(f"{key} {value:.4f}" for key, value in sorted(checkpoint.metrics.items()))
        size = f"{checkpoint.num_bytes / 1e6:.1f} MB"
        click.echo(f"step {checkpoint.step:>7}  attempt {checkpoint.attempt}  {size:>10}  {checkpoint.key}  {metrics}")


@click.command(short_help="Predict texts with RUN (SWEEP/INDEX).")
@click.argument("run")
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
    predicted = with_client(where, lambda client: predict(client, run, examples, paths.home().cache, step))
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in predicted)
    if out is None:
        click.echo(lines, nl=False)
    else:
        out.write_text(lines, encoding="utf-8")
        click.echo(f"{len(predicted)} predictions in {out}", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@temporal_options
def ls(as_json: bool, limit: int, **where: str | None) -> None:
    """List the sweeps, newest first."""
    from bertpar.listing import list_sweeps

    sweeps = with_client(where, lambda client: list_sweeps(client, limit))
    if as_json:
        click.echo(json.dumps([sweep.as_json() for sweep in sweeps], indent=1))
    elif sweeps:
        zone = sweeps[0].started_at.astimezone().tzname()
        click.echo(_SWEEP_LINE.format("sweep", "status", "runs", f"started ({zone})"))
        for sweep in sweeps:
            started = sweep.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            num_runs = "" if sweep.num_runs is None else sweep.num_runs
            click.echo(_SWEEP_LINE.format(sweep.sweep_id, sweep.status, num_runs, started))
    else:
        click.echo("no sweeps yet: python train.py -m lr=5e-5,2e-4", err=True)


def _say(message: str) -> None:
    click.echo(message, err=True)
