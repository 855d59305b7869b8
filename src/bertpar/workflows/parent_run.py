"""The sweep's own MLflow run, the parent of its runs': opened beside them, and closed after the last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from bertpar.mlflow_jobs import MlflowRun, ReportJob
    from bertpar.states import RunState, SweepOptions
    from bertpar.workflows import calls
    from bertpar.workflows.failures import describe_failure
    from bertpar.workflows.records import closing_of_sweep, opening_of_sweep

_WITH_REPORT: Final = "sweep-report"
"""Marks the histories of sweeps that make a report: those that began under an older version end as they began."""

_STATUS: Final[dict[str, Literal["FINISHED", "FAILED", "KILLED"]]] = {
    "completed": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}


class ParentRun:
    """Nothing waits for it but the end of the sweep."""

    def __init__(self, sweep_id: str, options: SweepOptions, mlflow_run: MlflowRun | None) -> None:
        self.mlflow_run = mlflow_run
        """None where MLflow has not answered yet."""
        self._options = options
        self._job = opening_of_sweep(sweep_id, options)
        self._opening: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Have it opened, if that is not so."""
        if self.mlflow_run is None and self._opening is None:
            self._opening = asyncio.create_task(self._open_patiently())

    async def _open_patiently(self) -> None:
        try:
            self.mlflow_run = await calls.open_run(self._job, self._options)
        except ActivityError as error:  # told again, and by every run, when they are closed
            workflow.logger.error("no MLflow run yet: %s", describe_failure(error).message)

    async def _report(self, status: Literal["completed", "failed", "cancelled"]) -> None:
        """Have the sweep's report made; one that cannot be made is made up for by `bertpar report`, at any time."""
        try:
            await calls.make_report(ReportJob(opening=self._job, status=status), self._options)
        except ActivityError as error:
            workflow.logger.error("the sweep has no report in MLflow: %s", describe_failure(error).message)

    async def close(
        self, outcome: Literal["running", "completed", "failed", "cancelled"], runs: Iterable[RunState]
    ) -> None:
        """Bring it to its end; one that was never opened, because no run ever began, stays away."""
        if outcome == "running" or (self.mlflow_run is None and self._opening is None):
            return
        if self._opening is not None:
            self._opening.cancel()  # closing does what is missing
        if workflow.patched(_WITH_REPORT):
            await self._report(outcome)
        try:
            self.mlflow_run = await calls.close_run(closing_of_sweep(self._job, _STATUS[outcome], runs), self._options)
        except ActivityError as error:  # MLflow refuses for good, which the runs have told: their results stand
            workflow.logger.error("the sweep's MLflow run stays open: %s", describe_failure(error).message)
