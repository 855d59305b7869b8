"""The runs of a sweep with their states, as the coordinator keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.states import RunRef, RunState


class RunTable:
    """Run states by index, iterated in that order."""

    def __init__(self, states: Iterable[RunState]) -> None:
        self._states = {state.run.index: state for state in states}
        self.num_changes = 0
        """Tells two moments apart: to compare all states would take long."""

    def __getitem__(self, index: int) -> RunState:
        return self._states[index]

    def __contains__(self, index: int) -> bool:
        return index in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[RunState]:
        return iter([self._states[index] for index in sorted(self._states)])

    def add(self, run: RunRef) -> None:
        """Add a queued run; one that is there stays as it is."""
        if run.index not in self:
            self._states[run.index] = RunState(run=run)
            self.num_changes += 1

    def record_fork(self, index: int) -> None:
        """Have the run that a fork begins from know of it, if it is of the same sweep."""
        fork = self[index].run
        for state in self:
            if fork.forked_from is not None and fork.forked_from.partition("@")[0] == state.run.run_id:
                self.change(state.run.index, forks=(*state.forks, fork.run_id))

    def change(self, index: int, **changes: Any) -> None:
        """Give the run's state these values."""
        self._states[index] = replace(self._states[index], **changes)
        self.num_changes += 1

    def settle(self, index: int, **changes: Any) -> None:
        """Give these values to the state of a run that is in nobody's hands any more, by itself a step in history.

        A workflow task without a command is merged at a replay with the next one, whose updates then come first: a
        command on this run would meet the state before.
        """
        self.change(index, **changes)
        workflow.upsert_memo({"settled": f"{index} {self[index].status}"})
