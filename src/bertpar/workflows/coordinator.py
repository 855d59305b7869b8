"""CoordinatorWorkflow: one sweep. Prepares each dataset once, trains and evaluates every run, and knows the ranking."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from bertpar.events import ATTEMPT_ENDED, ATTEMPT_STARTED, AttemptEnded, AttemptStarted, Failure, SnapshotRef
    from bertpar.ledger import entry
    from bertpar.states import Command, RunBatch, RunRef, Steered, SweepState, SweepStatus, SweepSummary
    from bertpar.workflows.budget import Budget
    from bertpar.workflows.failures import cancel_requested, last_frame, refuse_for
    from bertpar.workflows.in_flight import RunsInFlight
    from bertpar.workflows.length import HistoryLength
    from bertpar.workflows.parent_run import ParentRun
    from bertpar.workflows.planning import all_done, common_failure, leaderboard, next_starts, sweep_outcome
    from bertpar.workflows.snapshots import Snapshots
    from bertpar.workflows.steering import (
        effect,
        refusal,
        refusal_of_budget,
        refusal_of_extension,
        refusal_of_more,
        still_training,
        waiting_to_displace,
    )
    from bertpar.workflows.table import RunTable

_IDLE_GRACE = timedelta(minutes=10)
"""How long a sweep that is not closed waits for another batch after its last run."""

_MAX_IN_FLIGHT = 100
"""Runs in flight where the user sets no limit: enough to keep a fleet busy, few enough for one history."""


@workflow.defn
class CoordinatorWorkflow:
    @workflow.init
    def __init__(self, state: SweepState) -> None:
        self._sweep = state
        self._table = RunTable(state.runs)
        self._closed = state.closed
        self._paused = state.paused
        self._may_pause = state.may_pause
        self._parent = ParentRun(state.sweep_id, state.options, state.mlflow)
        self._snapshots = Snapshots(state.options, state.snapshots)
        self._runs = RunsInFlight(state.sweep_id, state.options, self._table, self._snapshots, self._fail)
        self._over: Literal["is being cancelled", "is ending: all its runs are done", "is ending"] | None = None
        """Why it takes no more commands."""
        self._standing: object = None
        self._history = HistoryLength()
        self._budget = Budget(self._table, state.options.budget_hours)
        self._stopped = False
        """Its budget was used up before its runs were done."""
        self._ended = False

    @workflow.run
    async def run(self, state: SweepState) -> SweepSummary:
        """Return how it went once every run has ended; failed runs do not fail the sweep's workflow."""
        try:
            await self._serve()
        except BaseException as error:
            if not (is_cancelled_exception(error) or cancel_requested()):
                raise
            self._over = "is being cancelled"
            await asyncio.shield(self._end("cancelled"))
            raise
        self._over = "is ending" if self._stopped else "is ending: all its runs are done"
        await self._end("cancelled" if self._stopped else sweep_outcome(self._table))
        return SweepSummary(sweep_id=self._sweep.sweep_id, status=self._outcome(), num_runs=len(self._table))

    # --- updates, signals, queries ------------------------------------------------------------------------

    @workflow.update
    def add_runs(self, batch: RunBatch) -> int:
        """Add the batch's runs, and return how many runs the sweep has; runs that are there stay as they are."""
        self._snapshots.forget_failed()
        for ref in batch.runs:
            self._table.add(ref)
        self._closed = self._closed or batch.final
        return len(self._table)

    @add_runs.validator
    def _refuse_batch(self, batch: RunBatch) -> None:
        num_added = sum(ref.index not in self._table for ref in batch.runs)
        if num_added:
            self._refuse_if_over()
        if self._closed and num_added:
            raise ApplicationError(f"sweep {self._sweep.sweep_id} is closed: it takes no further runs")
        refuse_for(refusal_of_more(self.status(), num_added))

    @workflow.update
    def extend(self, runs: tuple[RunRef, ...]) -> Steered:
        """Add runs that a user gives to a sweep on its way; their numbers continue, whatever they were numbered."""
        self._snapshots.forget_failed()
        first = max((state.run.index for state in self._table), default=-1) + 1
        for index, ref in enumerate(runs, first):
            self._table.add(replace(ref, index=index, run_id=f"{self._sweep.sweep_id}/{index}"))
            self._table.record_fork(index)
        return Steered(runs=tuple(range(first, first + len(runs))))

    @extend.validator
    def _refuse_extension(self, runs: tuple[RunRef, ...]) -> None:
        self._refuse_if_over()
        refuse_for(refusal_of_extension(self.status(), runs, is_closed=self._closed))

    @workflow.signal
    def close(self) -> None:
        """Say that no batch follows."""
        self._closed = True

    @workflow.update
    def steer(self, command: Command) -> Steered:
        """Carry out a user's command, as far as it is decided at once: who leaves a slot does so in its own time."""
        steered, changes = effect(self.status(), command)
        for index, change in changes.items():
            self._table.change(index, **change)
            if change.get("status") == "cancelled":
                self._runs.let_go(index)
        if command.kind in ("resume", "retry"):
            self._snapshots.forget_failed()
        if command.kind == "retry":
            self._runs.forget_ends(changes)
        elif command.kind == "set":
            value = {command.setting: getattr(command, command.setting)}
            self._sweep = replace(self._sweep, options=replace(self._sweep.options, **value))
            self._budget.hours = self._sweep.options.budget_hours
        elif command.run is None and command.kind == "pause":
            self._paused = "a user has paused it"
        elif command.run is None and command.kind == "resume":
            self._paused, self._may_pause = None, False  # it does not pause by itself a second time
        return steered

    @steer.validator
    def _refuse_command(self, command: Command) -> None:
        self._refuse_if_over()
        refuse_for(refusal(self.status(), command))
        refuse_for(refusal_of_budget(self.status(), command, workflow.now().timestamp()))

    def _refuse_if_over(self) -> None:
        if self._over is not None:
            why = f": {self._budget.used_up()}" if self._stopped else ""
            raise ApplicationError(f"sweep {self._sweep.sweep_id} {self._over}{why}")

    @workflow.signal(name=ATTEMPT_STARTED)
    def attempt_started(self, started: AttemptStarted) -> None:
        """Remember that an attempt has a slot, and its number; said twice, or by an older one, it changes nothing."""
        if started.run in self._table and started.attempt > self._table[started.run].attempt:
            self._table.change(started.run, attempt=started.attempt)
            if self._table[started.run].status == "training":  # else it has left: the signal was slower
                since = workflow.now().timestamp() if started.started_at is None else started.started_at
                self._table.change(started.run, has_slot=True, slot_since=since)

    @workflow.signal(name=ATTEMPT_ENDED)
    def attempt_ended(self, ended: AttemptEnded) -> None:
        """Enter into the run's ledger what an attempt has spent and lost, and that it has no slot; see `entry`."""
        if ended.run in self._table:
            self._table.change(ended.run, **entry(self._table[ended.run], ended))

    @workflow.query
    def status(self) -> SweepStatus:
        """Return every run's state as the coordinator knows it."""
        return SweepStatus(
            sweep_id=self._sweep.sweep_id,
            name=self._sweep.name,
            status=self._outcome(),
            runs=tuple(self._table),
            mlflow=self._parent.mlflow_run,
            options=self._sweep.options,
            paused=self._paused,
            out_of_budget=self._budget.used_up(),
        )

    @workflow.query
    def snapshots(self) -> dict[str, SnapshotRef]:
        """Return the snapshots made so far, by RunRef.snapshot_request."""
        return self._snapshots.known

    # --- the sweep ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            if self._runs.bug is not None:
                raise self._runs.bug
            for index in self._to_displace():
                self._table.change(index, order="yield")
            self._runs.tell_orders()
            if self._is_drained():
                self._continue_as_new()
            for index in self._next_starts():
                self._parent.open()
                self._runs.start(index)
            if self._is_idle():
                if self._closed or not await self._another_batch():
                    return
                continue
            if self._is_stopped():
                self._stopped = True
                return
            await self._wait_for_attention()

    async def _wait_for_attention(self) -> None:
        """Return when there is something to do; the moment at which the budget will be used up is watched meanwhile."""
        at = self._budget.alarm()
        timeout = None if at is None else max(0.0, at - workflow.now().timestamp())

        def is_time() -> bool:
            return (self._has_changed() and self._wants_attention()) or self._budget.alarm() != at

        with suppress(TimeoutError):
            await workflow.wait_condition(is_time, timeout=timeout)

    def _has_changed(self) -> bool:
        """Say whether anything has changed since this was asked last by which the sweep decides, and show it.

        It is asked far more often than that is so, and to look through a thousand runs takes long.
        """
        held = (self._runs.num_in_hand(), self._runs.bug, self._history.is_long(), workflow.all_handlers_finished())
        standing = (self._table.num_changes, self._paused, self._closed, self._sweep.options, *held)
        if standing == self._standing:
            return False
        self._standing = standing
        workflow.set_current_details(leaderboard(self._table))
        return True

    def _is_stopped(self) -> bool:
        """Say whether the budget is used up and all that had a slot has left it."""
        return self._budget.used_up() is not None and self._runs.is_empty() and not all_done(self._table)

    def _wants_attention(self) -> bool:
        return (
            self._runs.bug is not None
            or bool(self._to_displace())
            or self._runs.has_untold()
            or bool(self._next_starts())
            or self._is_idle()
            or self._is_drained()
            or self._is_stopped()
        )

    def _to_displace(self) -> list[int]:
        if self._budget.used_up() is not None:
            return still_training(self._table)
        return [] if self._paused is not None else waiting_to_displace(self._table)

    def _next_starts(self) -> list[int]:
        # Continuing as new would terminate running children: let them end first, start no others.
        if self._paused is not None or self._history.is_long() or self._budget.used_up() is not None:
            return []
        return next_starts(self._table, self._sweep.options.max_parallel or _MAX_IN_FLIGHT)

    def _is_idle(self) -> bool:
        return all_done(self._table) and self._runs.is_empty()

    async def _another_batch(self) -> bool:
        try:
            await workflow.wait_condition(lambda: self._closed or not all_done(self._table), timeout=_IDLE_GRACE)
        except TimeoutError:
            self._closed = True
        return not all_done(self._table)

    def _is_drained(self) -> bool:
        at_rest = self._runs.is_empty() and workflow.all_handlers_finished()
        return self._history.is_long() and at_rest and not all_done(self._table)

    def _continue_as_new(self) -> None:
        workflow.continue_as_new(
            replace(
                self._sweep,
                runs=tuple(self._table),
                closed=self._closed,
                snapshots=self._snapshots.known,
                mlflow=self._parent.mlflow_run,
                paused=self._paused,
                may_pause=self._may_pause,
            )
        )

    async def _end(self, outcome: Literal["running", "completed", "failed", "cancelled"]) -> None:
        if outcome == "cancelled":
            await self._runs.cancel_all()
        await self._parent.close(outcome, self._table)
        self._ended = True
        workflow.set_current_details(leaderboard(self._table))

    def _outcome(self) -> Literal["running", "completed", "failed", "cancelled"]:
        if not self._ended:
            return "running"
        return "cancelled" if self._stopped or self._over == "is being cancelled" else sweep_outcome(self._table)

    def _fail(self, index: int, failure: Failure) -> None:
        workflow.logger.error("run %s failed: %s", index, failure.message)
        self._table.settle(index, status="failed", failure=replace(failure, traceback=last_frame(failure.traceback)))
        if self._may_pause and (common := common_failure(self._table)) is not None:
            self._paused = f"the first runs failed alike, with {common.error_type}: {common.message.splitlines()[0]}"
