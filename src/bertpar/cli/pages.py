"""The command that leads to web pages: those of the stack, or those of one sweep."""

from __future__ import annotations

import click

from bertpar import paths
from bertpar.cli.asking import (
    json_option,
    print_json,
    refuse_without_sweep,
    say,
    sweep_argument,
    temporal_options,
    with_sweep,
)
from bertpar.paths import Home


@click.command(short_help="Addresses of MLflow's and Temporal's pages.")
@sweep_argument(required=False)
@click.option("--open", "open_browser", is_flag=True, help="Open the pages in a browser.")
@json_option
@temporal_options
def ui(sweep: str | None, open_browser: bool, as_json: bool, **where: str | None) -> None:
    """Print the addresses of MLflow's and Temporal's pages: of SWEEP, or their starts. Starts MLflow's page."""
    home = paths.home()
    if sweep is None:
        refuse_without_sweep(where)
        pages = _stack_pages(home)
    else:
        pages = _sweep_pages(sweep, home, where)
    if as_json:
        print_json(pages)
    else:
        for name, url in pages.items():
            click.echo(f"{'MLflow' if name.startswith('mlflow') else 'Temporal':<10}{url}")
    if open_browser:
        for url in pages.values():
            click.launch(url)


def _stack_pages(home: Home) -> dict[str, str]:
    from bertpar import stack

    pages = {"mlflow_ui": stack.request_mlflow_ui(home, on_wait=say)}
    if (running := stack.read(home)) is not None:
        pages["temporal_ui"] = running.temporal_ui
    return pages


def _sweep_pages(sweep: str, home: Home, where: dict[str, str | None]) -> dict[str, str]:
    from bertpar import stack
    from bertpar.client import temporal_spec, web_ui
    from bertpar.observe import observe
    from bertpar.pages import mlflow_base, mlflow_page, temporal_page
    from bertpar.tracking.address import without_password

    view = with_sweep(where, sweep, observe)
    status = view.sweep
    pages: dict[str, str] = {}
    uri = status.options.tracking.uri
    base = stack.request_mlflow_ui(home, on_wait=say) if uri == home.mlflow_uri else mlflow_base(uri, home)
    if base is not None:
        pages["mlflow_sweep"] = mlflow_page(status, view.mlflow_run_ids(), base)
    else:
        say(f"MLflow's page is yours to start: mlflow ui --backend-store-uri {without_password(uri)}")
    # Where the sweep is looked at from now, not where it was submitted from: ports may have changed.
    temporal_ui = web_ui(temporal_spec(**where), home) or status.options.temporal_ui
    if temporal_ui is not None:
        pages["temporal_sweep"] = temporal_page(temporal_ui, status.sweep_id)
    return pages
