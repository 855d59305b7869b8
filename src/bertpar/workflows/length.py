"""How long a workflow's history may become before it continues as new."""

from __future__ import annotations

from typing import Final

from temporalio import workflow

_MULTIPLE = 1.75
"""Of the length at which Temporal first suggests to continue as new (4,096 events): it warns at 2.5 times that. The
rest is for the runs that are in flight then. Sooner costs more: the states of all runs are carried over each time."""

_LATE: Final = "continue-as-new-late"
"""Marks the histories of sweeps that wait for this multiple: older ones stopped starting runs at the suggestion."""


class HistoryLength:
    """Knows when the history of the workflow that asks is long."""

    def __init__(self) -> None:
        self._longest: float | None = None
        """In events; None before Temporal has suggested anything."""

    def is_long(self) -> bool:
        """Say whether it is time to continue as new; told by history alone, so that a replay says the same."""
        info = workflow.info()
        length = info.get_current_history_length()
        if self._longest is None and info.is_continue_as_new_suggested():
            self._longest = length * (_MULTIPLE if workflow.patched(_LATE) else 1)
        return self._longest is not None and length >= self._longest
