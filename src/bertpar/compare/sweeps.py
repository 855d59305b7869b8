"""The comparison of sweeps by their names: asks Temporal for the runs, and reads their results from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client

from bertpar.answers import query
from bertpar.compare.comparison import Comparison, compare
from bertpar.compare.results import SweepResults, read_sweep_results
from bertpar.states import SweepStatus
from bertpar.store import Store
from bertpar.workflows.coordinator import CoordinatorWorkflow


async def compare_sweeps(client: Client, sweep_ids: Sequence[str], cache: Path) -> Comparison:
    """Return the comparison of all completed runs of the sweeps; a sweep that is named twice counts once.

    Raises:
        NotFoundError: there is no such sweep, or no run has completed.
        NotComparableError: test sets, tasks or objectives differ.
        CorruptError: an evaluation is missing or damaged.
    """
    return compare(await read_sweeps(client, sweep_ids, cache))


async def read_sweeps(client: Client, sweep_ids: Sequence[str], cache: Path) -> list[SweepResults]:
    """Return the results of the sweeps' completed runs.

    Raises:
        NotFoundError, CorruptError: as compare_sweeps.
    """
    found: list[SweepResults] = []
    for sweep_id in dict.fromkeys(sweep_ids):
        sweep: SweepStatus = await query(client, sweep_id, CoordinatorWorkflow.status)
        store = Store(sweep.options.store_root, cache)
        found.append(await asyncio.to_thread(read_sweep_results, sweep, store))
    return found
