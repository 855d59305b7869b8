"""A sweep for Python's users: awaited, looked at, steered."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from bertpar import extending, steer
from bertpar.api import background, display, html
from bertpar.api.cluster import Cluster, as_folder, say
from bertpar.api.frame import results_frame
from bertpar.api.run import Run
from bertpar.compare import Comparison, compare_sweeps
from bertpar.errors import NotFoundError
from bertpar.follow import follow_runs, say_goodbye, wait_until_ended
from bertpar.observe import SweepView, observe
from bertpar.workflows.planning import rank

if TYPE_CHECKING:
    from pandas import DataFrame

POLL_SECONDS = 0.5


class Sweep:
    """A sweep, wherever it was started. It lives in Temporal: forgetting this object changes nothing.

    `await sweep` and `sweep.wait()` return it when it has ended, however its runs did.
    """

    def __init__(self, cluster: Cluster, sweep_id: str) -> None:
        self._cluster = cluster
        self.sweep_id = sweep_id
        self._table = display.LiveTable(cluster, sweep_id)

    def __repr__(self) -> str:
        return f"<bertpar.Sweep {self.sweep_id}>"

    def _repr_html_(self) -> str:
        return html.sweep_table(self._view())

    def _ipython_display_(self) -> None:
        if display.in_notebook():
            self._table.show(self._view())
        else:
            print(repr(self))

    def __await__(self) -> Generator[Any, None, Sweep]:
        return self._wait_beside().__await__()

    def wait(self) -> Sweep:
        """Block until the sweep has ended; outages are waited through. Ctrl-C leaves it running."""
        try:
            background.run(self._until_ended())
        except KeyboardInterrupt:
            say_goodbye(self.sweep_id)
            raise
        return self

    def follow(self) -> None:
        """As `wait`, and show the runs meanwhile: a table that changes in place, or lines where there is none."""
        try:
            if display.in_notebook():
                client = background.run(self._cluster.patient_client())
                display.follow(client, self.sweep_id, POLL_SECONDS)
            else:
                background.run(self._follow_in_terminal())
        except KeyboardInterrupt:
            say_goodbye(self.sweep_id)
            raise

    def status(self) -> str:
        """Return `running`, `completed` (every run did), `failed` (a run did) or `cancelled`."""
        return self._view().sweep.status

    def details(self) -> dict[str, Any]:
        """Return everything that is known of it and its runs, as `bertpar status --json` prints it."""
        return self._view().as_json()

    @property
    def runs(self) -> list[Run]:
        """Its runs, by index."""
        return [Run(self._cluster, run.state.run) for run in self._view().runs]

    def results(self) -> DataFrame:
        """Return one row a run, also while they run: what was swept, status, step, attempt, and every metric.

        Metrics are `val/...` of the best checkpoint and `test/...`; what a run does not have yet is nan.
        """
        return results_frame(self._view())

    def best(self) -> Run:
        """Return the completed run with the best value of `checkpoint.monitor`.

        Raises:
            NotFoundError: no run has completed.
        """
        ranked = rank(run.state for run in self._view().runs if run.state.status == "completed")
        if not ranked:
            raise NotFoundError(f"no run of {self.sweep_id} has completed: sweep.results() shows how far they are")
        return Run(self._cluster, ranked[0].run)

    def pause(self) -> None:
        """Start nothing more, and have what trains make a checkpoint and leave its slot.

        Raises (as every command here but `cancel`):
            RefusedError: the sweep has ended, or its state does not allow it; the message names it.
        """
        self._cluster.ask(lambda client: steer.pause(client, self.sweep_id, say))

    def resume(self) -> None:
        """Go on after a pause, also one that the sweep made by itself: with all paused runs, and what is queued."""
        self._cluster.ask(lambda client: steer.resume(client, self.sweep_id, say))

    def cancel(self) -> bool:
        """Stop it; what is finished stays. Return False where it has ended already."""
        return self._cluster.ask(lambda client: steer.cancel_sweep(client, self.sweep_id))

    def add(self, *overrides: str, config_dir: str | Path | None = None) -> list[Run]:
        """Add the runs that `overrides` describe, configured like the first one otherwise, and return them."""
        cluster = self._cluster
        _, refs = cluster.ask(
            lambda client: extending.add(
                client, self.sweep_id, overrides, cluster.home, say, config_dir=as_folder(config_dir)
            )
        )
        return [Run(cluster, ref) for ref in refs]

    def drop(self, *criteria: str) -> list[Run]:
        """Cancel the runs, of those not done yet, that match all of `criteria` (`"lr=1e-3"`), and return them."""
        dropped = self._cluster.ask(lambda client: steer.drop(client, self.sweep_id, criteria, say)).runs
        return [run for run in self.runs if run.index in dropped]

    def set(
        self, *, max_parallel: int | EllipsisType | None = ..., budget_hours: float | EllipsisType | None = ...
    ) -> None:
        """Change how many runs may be in flight, or how much compute time all may take; None for no limit.

        With fewer runs in flight nothing is stopped.
        """
        for key, value in (("max_parallel", max_parallel), ("budget.hours", budget_hours)):
            if value is not ...:
                self._set(f"{key}={'null' if value is None else value}")

    def compare(self, *others: Sweep) -> Comparison:
        """Return the comparison of its configurations, and those of `others`: printed, it says which is better.

        Raises:
            NotComparableError: their runs were scored on different test examples, or selected by different metrics.
        """
        sweep_ids = [self.sweep_id, *(other.sweep_id for other in others)]
        return self._cluster.ask(lambda client: compare_sweeps(client, sweep_ids, self._cluster.home.cache))

    def report(self, file: str | Path) -> Path:
        """Write its report, as it is now, as one HTML page, and return the file."""
        from bertpar.report import gather, render

        contents = self._cluster.ask(lambda client: gather(client, self.sweep_id, self._cluster.home.cache))
        path = Path(file)
        path.write_text(render(contents), encoding="utf-8")
        return path

    def _set(self, assignment: str) -> None:
        self._cluster.ask(lambda client: steer.set_option(client, self.sweep_id, assignment, say))

    def _view(self) -> SweepView:
        return self._cluster.ask(lambda client: observe(client, self.sweep_id))

    async def _wait_beside(self) -> Sweep:
        try:
            await background.run_beside(self._until_ended())
        except (KeyboardInterrupt, asyncio.CancelledError):  # as which Ctrl-C reaches a coroutine
            say_goodbye(self.sweep_id)
            raise
        return self

    async def _until_ended(self) -> None:
        await wait_until_ended(await self._cluster.patient_client(), self.sweep_id, POLL_SECONDS)

    async def _follow_in_terminal(self) -> None:
        client = await self._cluster.patient_client()
        await follow_runs(client, self.sweep_id, None, POLL_SECONDS, self._cluster.home)
