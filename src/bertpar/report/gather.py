"""Collects what a report shows: how the runs went (Temporal), what came out (the store), the curves (MLflow)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from temporalio.client import Client

from bertpar.compare import Comparison, RunResult, compare, read_sweep_results
from bertpar.errors import CorruptError, NotComparableError, NotFoundError, TrackingError
from bertpar.observe import SweepView, observe
from bertpar.render import stopping_lines
from bertpar.report.contents import Contents, Curves
from bertpar.report.curves import read_curves
from bertpar.states import RunState
from bertpar.store import Store
from bertpar.why import RunRecord, explain_state, read_slot_times
from bertpar.workflows.planning import rank

MOST_RUNS_SHOWN = 60
"""With curves and on the timeline: more lines cannot be told apart, and each takes questions to ask."""

_AT_ONCE = 8


async def gather(client: Client, sweep_id: str, cache: Path, status: str | None = None) -> Contents:
    """Return the contents of a sweep's report; `status` is how it ends, where it cannot say so itself yet.

    What cannot be had (no MLflow, a damaged evaluation) is named in the notes, and the rest is there.

    Raises:
        NotFoundError: there is no such sweep.
        StoreError: the store cannot be read.
        RPCError: the server or the evaluation worker does not answer.
    """
    view = await observe(client, sweep_id)
    shown = _shown([run.state for run in view.runs])
    notes = stopping_lines(view)
    if len(shown) < len(view.runs):
        notes.append(
            f"Curves and timeline show {len(shown)} of the {len(view.runs)} runs: those whose attempts failed first, "
            "then the best."
        )
    results, comparison, no_comparison = await asyncio.to_thread(_compare, view, cache)
    return Contents(
        view=view,
        status=status or view.sweep.status,
        made_at=datetime.now(UTC),
        comparison=comparison,
        no_comparison=no_comparison,
        results=results,
        curves=await asyncio.to_thread(_curves, view, shown, notes),
        records=await _records(client, sweep_id, shown),
        notes=notes,
    )


def _shown(states: Sequence[RunState]) -> list[RunState]:
    """Return the runs that are shown one by one, in their order."""
    by_interest = sorted(rank(states), key=lambda state: state.attempt < 2 and state.status != "failed")
    return sorted(by_interest[:MOST_RUNS_SHOWN], key=lambda state: state.run.index)


def _compare(view: SweepView, cache: Path) -> tuple[tuple[RunResult, ...], Comparison | None, str | None]:
    store = Store(view.sweep.options.store_root, cache)
    try:
        found = read_sweep_results(view.sweep, store)
    except CorruptError as error:
        return (), None, str(error)
    try:
        return found.runs, compare([found]), None
    except (NotFoundError, NotComparableError) as error:
        return found.runs, None, str(error)


def _curves(view: SweepView, shown: Sequence[RunState], notes: list[str]) -> tuple[Curves, ...]:
    ids = {state.run.run_id: state.mlflow_run_id for state in shown if state.mlflow_run_id is not None}
    if not ids:
        return ()
    try:
        return read_curves(view.sweep.options.tracking.uri, shown[0].run.objective, ids)
    except TrackingError as error:
        notes.append(f"No learning curves: {error}")
        return ()


async def _records(client: Client, sweep_id: str, shown: Sequence[RunState]) -> tuple[RunRecord, ...]:
    slots = await read_slot_times(client, sweep_id)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def explain(state: RunState) -> RunRecord:
        async with gate:
            return await explain_state(client, state, slots.get(state.run.index, {}))

    return tuple(await asyncio.gather(*map(explain, shown)))
