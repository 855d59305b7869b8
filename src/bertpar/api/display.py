"""Following a sweep in a notebook: one table, redrawn in place. IPython is used where it is, and needed nowhere."""

from __future__ import annotations

import sys
from typing import Any

from bertpar.api import background, html
from bertpar.follow import Lookout
from bertpar.patience import PatientClient


def in_notebook() -> bool:
    """Say whether this code runs in the kernel of a notebook, which shows HTML and can change it later."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


def follow(client: PatientClient, sweep_id: str, poll_seconds: float) -> None:
    """Show the sweep's runs until it has ended. Call it in the cell's own thread, to whose output the table belongs."""
    from IPython.display import HTML, display

    lookout = Lookout(client, sweep_id, poll_seconds)
    view = background.run(lookout.look())
    table: Any = display(HTML(html.sweep_table(view)), display_id=True)
    while view.sweep.status == "running":
        view = background.run(lookout.look_again())
        table.update(HTML(html.sweep_table(view)))
