"""A sweep's budget of compute time, as its coordinator watches it."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bertpar.ledger import is_used_up, out_of_budget, used_up_at
    from bertpar.workflows.table import RunTable


class Budget:
    """Says whether the time that a table's runs have spent and still spend uses it up."""

    def __init__(self, table: RunTable, hours: float | None) -> None:
        self.hours = hours
        """None for no limit."""
        self._table = table

    def used_up(self) -> str | None:
        """Return, in words, that it is used up; None where it is not."""
        if self.hours is None or not is_used_up(self._table, self.hours, workflow.now().timestamp()):
            return None
        return out_of_budget(self.hours)

    def alarm(self) -> float | None:
        """Return when it will be used up, in seconds since 1970, if that is to come."""
        return None if self.used_up() else used_up_at(self._table, self.hours)
