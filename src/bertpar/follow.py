"""Follows a sweep in a terminal: a live table where there is one, plain lines where there is not."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.live import Live
from temporalio.client import Client, WorkflowExecutionStatus

from bertpar.answers import Answers
from bertpar.observe import SweepView, observe
from bertpar.pages import mlflow_base, temporal_page
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.plain_log import PlainLog
from bertpar.render import final_report, live_table
from bertpar.states import TERMINAL, SweepOptions

_PLAIN_WIDTH = 200
_LONGEST_LOOK_SECONDS = 2.0


def announce(sweep_id: str, num_runs: int | None, options: SweepOptions) -> None:
    """Say that the sweep is accepted, and how to come back to it; `num_runs` is None where more may follow."""
    runs = "runs as its sweeper asks for them" if num_runs is None else "1 run" if num_runs == 1 else f"{num_runs} runs"
    print(f"sweep {sweep_id}: {runs}")
    print(f"  follow: bertpar attach {sweep_id}")
    if options.temporal_ui:
        print(f"  Temporal: {temporal_page(options.temporal_ui, sweep_id)}")
    sys.stdout.flush()


def say_goodbye(sweep_id: str) -> None:
    """Say that the sweep goes on without its follower, who has pressed Ctrl-C."""
    print(
        f"\ninterrupted: the sweep goes on.\n"
        f"  follow it:  bertpar attach {sweep_id}\n"
        f"  cancel it:  bertpar cancel {sweep_id}",
        file=sys.stderr,
    )


def make_console() -> Console:
    """Return a console for standard output, wide enough for whole lines where it is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


async def follow_runs(
    client: PatientClient, sweep_id: str, indices: Set[int] | None, poll_seconds: float, home: Home
) -> SweepView:
    """Show the sweep until the runs `indices` (None: all, and the sweep itself) have ended; return the last view.

    The ranking follows the end of the sweep. Of a batch, after which others may come, nothing is left but its news.
    """
    console = make_console()
    lookout = Lookout(client, sweep_id, poll_seconds)
    view = await lookout.look()
    log = PlainLog(console.is_terminal)
    live: AbstractContextManager[Live | None] = nullcontext()
    if console.is_terminal:
        live = Live(live_table(view), console=console, refresh_per_second=4, transient=indices is not None)
    with live as screen:
        while True:
            for line in log.news(view, indices):
                print(line, flush=True) if screen is None else screen.console.print(line, markup=False)
            if screen is not None:
                screen.update(live_table(view))
            if _ended(view, indices):
                break
            view = await lookout.look_again()
    if indices is None:
        show_ranking(view, home)
    return view


async def follow_ending(client: PatientClient, sweep_id: str, poll_seconds: float, home: Home) -> None:
    """Wait until a sweep whose runs have all been told of has ended, and show the ranking."""
    lookout = Lookout(client, sweep_id, poll_seconds)
    view = await lookout.look()
    while not _ended(view, None):
        view = await lookout.look_again()
    show_ranking(view, home)


async def wait_until_ended(client: PatientClient, sweep_id: str, poll_seconds: float) -> None:
    """Return when the sweep has ended. The server alone is asked, which costs its workers nothing."""

    async def runs(temporal: Client) -> bool:
        status = (await temporal.get_workflow_handle(sweep_id).describe()).status
        return status in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)

    while await client.ask(runs):  # noqa: ASYNC110 - what ends is elsewhere
        await asyncio.sleep(poll_seconds)


class Lookout:
    """Looks at a sweep again and again, and spends at most a fifth of the time on it.

    A worker replays a sweep's whole history for an answer: followers of large ones must not keep it busy. Where nothing
    has happened since the last look it is not asked.
    """

    def __init__(self, client: PatientClient, sweep_id: str, poll_seconds: float) -> None:
        self._client = client
        self._sweep_id = sweep_id
        self._poll_seconds = self._pause_seconds = poll_seconds
        self._answers = Answers()

    async def look(self) -> SweepView:
        started = time.monotonic()
        view = await self._client.ask(lambda c: observe(c, self._sweep_id, self._answers))
        busy_seconds = min(time.monotonic() - started, _LONGEST_LOOK_SECONDS)  # more is an outage
        self._pause_seconds = max(self._poll_seconds, 4 * busy_seconds)
        return view

    async def look_again(self) -> SweepView:
        await asyncio.sleep(self._pause_seconds)
        return await self.look()


def show_ranking(view: SweepView, home: Home, *, with_causes: bool = False) -> None:
    """Show the ranking of an ended sweep, with its links; `with_causes` also why runs failed."""
    mlflow_ui = mlflow_base(view.sweep.options.tracking.uri, home)
    report = final_report(view, mlflow_ui, with_causes=with_causes)
    make_console().print(report, highlight=False, soft_wrap=True)


def _ended(view: SweepView, indices: Set[int] | None) -> bool:
    if indices is None or view.sweep.status in ("failed", "cancelled"):
        return view.sweep.status != "running"
    return all(r.state.status in TERMINAL for r in view.runs if r.state.run.index in indices)
