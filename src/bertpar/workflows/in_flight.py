"""The runs that a coordinator has in its hands: those being computed, and those of which MLflow is being told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import Failure
    from bertpar.mlflow_jobs import CloseRunJob
    from bertpar.states import TERMINAL, SweepOptions
    from bertpar.workflows import calls
    from bertpar.workflows.failures import describe_failure, is_damage
    from bertpar.workflows.one_run import OneRun
    from bertpar.workflows.snapshots import Snapshots
    from bertpar.workflows.steering import status_after
    from bertpar.workflows.table import RunTable


@dataclass(frozen=True)
class _Computation:
    one: OneRun
    task: asyncio.Task[None]


class RunsInFlight:
    """Starts runs, has them leave as their orders in the table say, and brings their MLflow runs to an end."""

    def __init__(
        self,
        sweep_id: str,
        options: SweepOptions,
        table: RunTable,
        snapshots: Snapshots,
        on_failure: Callable[[int, Failure], None],
    ) -> None:
        self.bug: Exception | None = None
        """What must fail the workflow task, which then waits for better code."""
        self._sweep_id = sweep_id
        self._options = options
        self._table = table
        self._snapshots = snapshots
        self._on_failure = on_failure
        self._computing: dict[int, _Computation] = {}
        self._closings: dict[int, asyncio.Task[None]] = {}
        """What is finished stays: a cancellation waits for them."""
        self._is_cancelled = False

    def is_empty(self) -> bool:
        """Say whether nothing is being computed or told."""
        return not self._computing and not self._closings

    def num_in_hand(self) -> tuple[int, int]:
        """Return how many runs are being computed, and how many are being told."""
        return len(self._computing), len(self._closings)

    def start(self, index: int) -> None:
        """Carry out a queued run."""
        self._table.change(index, status="preparing")
        self._compute(index, OneRun(self._table[index].run, self._sweep_id, self._options, self._table))

    def has_untold(self) -> bool:
        """Say whether a run has an order that it was not told."""
        return any(self._is_untold(index) for index in self._computing)

    def tell_orders(self) -> None:
        """Have every run with an order leave: a training with a checkpoint, anything else at once."""
        for index in [index for index in self._computing if self._is_untold(index)]:
            computation = self._computing[index]
            if self._table[index].status == "training":
                computation.one.leave()
            else:
                computation.task.cancel()

    def let_go(self, index: int) -> None:
        """Bring the MLflow run of a run that has just been cancelled while it had no slot to its end."""
        if self._table[index].attempt > 0:
            run = self._table[index].run
            one = OneRun(run, self._sweep_id, self._options, self._table, self._snapshots.known[run.snapshot_request])
            self._close(index, one.closing("KILLED"), one)

    def forget_ends(self, indices: Iterable[int]) -> None:
        """No longer tell MLflow how runs have ended that are tried again."""
        for index in indices:
            if index in self._closings:
                self._closings.pop(index).cancel()

    async def cancel_all(self) -> None:
        """Cancel every run that has not ended, in order, and return when that is done and told."""
        self._is_cancelled = True
        for computation in self._computing.values():
            computation.task.cancel()
        await workflow.wait_condition(lambda: not self._computing)
        for state in self._table:
            if state.status not in (*TERMINAL, "reporting"):
                self._table.change(state.run.index, status="cancelled")
                self.let_go(state.run.index)
        await workflow.wait_condition(lambda: not self._closings)

    def _is_untold(self, index: int) -> bool:
        computation = self._computing[index]
        if self._table[index].order is None or computation.task.cancelling():
            return False
        return not (self._table[index].status == "training" and computation.one.is_told_to_leave)

    def _compute(self, index: int, one: OneRun) -> None:
        self._computing[index] = _Computation(one, asyncio.create_task(self._carry_out(index, one)))

    async def _carry_out(self, index: int, one: OneRun) -> None:
        try:
            closing = await one.carry_out(self._snapshots.of(one.run))
            if closing is None:
                self._set_aside(index, one)
            else:
                self._close(index, closing, one)
        except (FailureError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error):
                self._set_aside(index, one)
            else:
                self._table.change(index, order=None, has_slot=False)
                self._on_failure(index, describe_failure(error))
                if one.snapshot is not None:
                    self._close(index, one.closing("FAILED"), one)
        except Exception as error:
            self.bug = error
        finally:
            del self._computing[index]

    def _set_aside(self, index: int, one: OneRun) -> None:
        """Let a run that has left be what its order says; one without an order was cancelled by others."""
        status = "cancelled" if self._is_cancelled else status_after(self._table[index].order)
        self._table.settle(index, status=status, order=None, has_slot=False)
        if status == "cancelled" and one.snapshot is not None:
            self._close(index, one.closing("KILLED"), one)

    def _close(self, index: int, job: CloseRunJob, one: OneRun) -> None:
        self._closings[index] = asyncio.create_task(self._tell_mlflow(index, job, one))

    async def _tell_mlflow(self, index: int, job: CloseRunJob, one: OneRun) -> None:
        try:
            mlflow_run = await calls.close_run(job, self._options)
            self._table.change(index, mlflow_run_id=mlflow_run.run_id)
            if job.status == "FINISHED":
                self._table.change(index, status="completed")
        except FailureError as error:
            failure = describe_failure(error)
            if is_cancelled_exception(error):  # the run is tried again: this was not its end
                return
            if job.status != "FINISHED":  # how the run ended is known, and stays
                workflow.logger.error("the MLflow run of run %s stays open: %s", index, failure.message)
            elif is_damage(failure) and not self._is_cancelled and one.may_rebuild():
                self._compute(index, one)
            else:
                self._on_failure(index, failure)
        except Exception as error:
            self.bug = error
        finally:
            if self._closings.get(index) is asyncio.current_task():
                del self._closings[index]
