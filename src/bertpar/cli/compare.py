"""The commands that say which configuration is better: on the terminal, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import (
    json_option,
    print_json,
    sweep_argument,
    sweeps_argument,
    temporal_options,
    with_sweep,
    with_sweeps,
)
from bertpar.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from temporalio.client import Client

    from bertpar.compare import Comparison


@click.command(short_help="Say which configuration is better, and how sure that is.")
@sweeps_argument()
@json_option
@temporal_options
def compare(sweeps: tuple[str, ...], as_json: bool, **where: str | None) -> None:
    """Compare the configurations of one or more sweeps: seeds grouped, selection on validation, differences on test.

    The winner by the validation metric is compared with every other configuration on the same test examples.
    """
    from bertpar.compare import compare_sweeps, conclusion, limits
    from bertpar.follow import make_console

    comparison = with_sweeps(where, sweeps, lambda client, ids: compare_sweeps(client, ids, paths.home().cache))
    if as_json:
        print_json({**comparison.as_json(), "conclusion": conclusion(comparison)})
        return
    console = make_console()
    console.print(comparison_table(comparison), highlight=False)
    console.print(f"\n{conclusion(comparison)}", highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for note in limits(comparison):
        console.print(f"- {note}", highlight=False, markup=False, style="dim", soft_wrap=not console.is_terminal)


@click.command(short_help="Write a sweep's report, one HTML page.")
@sweep_argument()
@click.option("--out", type=click.Path(path_type=Path), help="Write it here. Default: SWEEP.html in this folder.")
@json_option
@temporal_options
def report(sweep: str, out: Path | None, as_json: bool, **where: str | None) -> None:
    """Write the report of SWEEP, as it is now, as one HTML page that needs no other file.

    The report of a sweep that has ended is also in MLflow: report.html, an artifact of the sweep's own run.
    """
    from bertpar.report import Contents, gather, render

    if out is not None:
        _check_writable(out)

    async def collect(client: Client, sweep_id: str) -> Contents:
        return await gather(client, sweep_id, paths.home().cache)

    contents = with_sweep(where, sweep, collect)
    file = out or Path(f"{contents.view.sweep.sweep_id}.html")
    page = render(contents)
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {file} cannot be written: {error}. Name a file in a folder of yours") from error
    if as_json:
        print_json({"sweep_id": contents.view.sweep.sweep_id, "status": contents.status, "file": str(file.resolve())})
    else:
        click.echo(file)


def _check_writable(out: Path) -> None:
    """Refuse what cannot become the page, before the work is done."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it: --out {out / 'report.html'}")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: folder {out.resolve().parent} does not exist")


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return one row a configuration, best on validation first."""
    from rich.text import Text

    from bertpar.compare import Row
    from bertpar.compare.words import lead_text, metric_text, p_text
    from bertpar.tables import Column, FittingTable

    columns: tuple[Column[Row], ...] = (
        Column(title="place", cell=lambda r: str(r.place), leaves=2),
        Column(title="configuration", cell=lambda r: Text(r.configuration.name), left=True, wraps=True),
        Column(title="seeds", cell=lambda r: str(len(r.configuration.runs)), leaves=3),
        Column(title=comparison.objective, cell=lambda r: metric_text(r.objective)),
        Column(title=comparison.test_metric, cell=lambda r: metric_text(r.test)),
        Column(title="lead of the winner", cell=lambda r: lead_text(r.lead), leaves=4),
        Column(title="p (Holm)", cell=lambda r: p_text(r.p_adjusted), leaves=1),
        Column(title="against the winner", cell=lambda r: "" if r.lead is None else r.verdict, left=True),
    )
    return FittingTable(columns=columns, rows=comparison.rows, header_style="bold")
