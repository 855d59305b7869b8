"""A sweep's table in a notebook, redrawn in place. IPython is used where it is, and needed nowhere."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from typing import Any

from bertpar.api import background, html
from bertpar.api.cluster import Cluster
from bertpar.follow import Lookout
from bertpar.observe import SweepView
from bertpar.patience import PatientClient

_SECONDS_BETWEEN_LOOKS = 2.0
"""Of a table that is redrawn while nobody may be looking."""


def in_notebook() -> bool:
    """Say whether this code runs in the kernel of a notebook, which shows HTML and can change it later."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


def follow(client: PatientClient, sweep_id: str, poll_seconds: float) -> None:
    """Show the sweep's runs until it has ended. Call it in the cell's own thread, to whose output the table belongs."""
    lookout = Lookout(client, sweep_id, poll_seconds)
    view = background.run(lookout.look())
    table = _show(view)
    while _runs(view):
        view = background.run(lookout.look_again())
        _redraw(table, view)


class LiveTable:
    """A sweep's table wherever a notebook shows it, redrawn until the sweep has ended, whatever other cells do."""

    def __init__(self, cluster: Cluster, sweep_id: str) -> None:
        self._cluster = cluster
        self._sweep_id = sweep_id
        self._shown: list[Any] = []
        self._redrawing: Future[None] | None = None

    def show(self, view: SweepView) -> None:
        """Show the table in the output of the cell that is being executed."""
        self._shown.append(_show(view))
        if _runs(view) and (self._redrawing is None or self._redrawing.done()):
            self._redrawing = background.begin(self._redraw_until_ended())

    async def _redraw_until_ended(self) -> None:
        client = await self._cluster.patient_client(say=_nothing)  # no cell asked: none is to show what is the matter
        lookout = Lookout(client, self._sweep_id, _SECONDS_BETWEEN_LOOKS)
        view = await lookout.look()
        while self._redraw_all(view):
            view = await lookout.look_again()

    def _redraw_all(self, view: SweepView) -> bool:
        """Redraw what is shown, and say whether that will change."""
        for table in self._shown:
            _redraw(table, view)
        return _runs(view)


def _runs(view: SweepView) -> bool:
    return view.sweep.status == "running"


def _show(view: SweepView) -> Any:
    from IPython.display import HTML, display

    return display(HTML(html.sweep_table(view)), display_id=True)


def _redraw(table: Any, view: SweepView) -> None:
    from IPython.display import HTML

    table.update(HTML(html.sweep_table(view)))


def _nothing(_message: str) -> None:
    pass
