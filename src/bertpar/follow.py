"""Follows a sweep in a terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.live import Live

from bertpar.events import TERMINAL, SweepOptions
from bertpar.observe import SweepView, observe
from bertpar.pages import mlflow_base, temporal_page
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.render import PlainLog, final_report, live_table

_PLAIN_WIDTH = 200


def announce(sweep_id: str, num_runs: int, options: SweepOptions) -> None:
    """Say that the sweep is accepted, and how to come back to it."""
    print(f"sweep {sweep_id}: {num_runs} {'run' if num_runs == 1 else 'runs'}")
    print(f"  follow: bertpar attach {sweep_id}")
    if options.temporal_ui:
        print(f"  Temporal: {temporal_page(options.temporal_ui, sweep_id)}")
    sys.stdout.flush()


def make_console() -> Console:
    """Return a console for standard output, wide enough for whole lines where it is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


async def follow_runs(
    client: PatientClient, sweep_id: str, indices: Set[int] | None, poll_seconds: float, home: Home
) -> SweepView:
    """Show the sweep until the runs `indices` (None: all, and the sweep itself) have ended; return the last view."""
    console = make_console()
    view = await client.ask(lambda c: observe(c, sweep_id))
    if indices is None or 0 in indices:
        announce(sweep_id, len(view.runs), view.sweep.options)
    log = PlainLog(console.is_terminal)
    live: AbstractContextManager[Live | None] = (
        Live(live_table(view), console=console, refresh_per_second=4) if console.is_terminal else nullcontext()
    )
    with live as screen:
        while True:
            for line in log.news(view, indices):
                print(line, flush=True) if screen is None else screen.console.print(line, markup=False)
            if screen is not None:
                screen.update(live_table(view))
            if _ended(view, indices):
                break
            await asyncio.sleep(poll_seconds)
            view = await client.ask(lambda c: observe(c, sweep_id))
    _report(view, indices, console, home)
    return view


async def show_ranking(client: PatientClient, sweep_id: str, home: Home) -> None:
    """Show the ranking of all runs of all batches."""
    _report(await client.ask(lambda c: observe(c, sweep_id)), None, make_console(), home)


def _report(view: SweepView, indices: Set[int] | None, console: Console, home: Home) -> None:
    mlflow_ui = mlflow_base(view.sweep.options.tracking.uri, home)
    console.print(final_report(view, indices, mlflow_ui), highlight=False, soft_wrap=True)


def _ended(view: SweepView, indices: Set[int] | None) -> bool:
    if indices is None or view.sweep.status in ("failed", "cancelled"):
        return view.sweep.status != "running"
    return all(r.state.status in TERMINAL for r in view.runs if r.state.run.index in indices)
