"""What a sweep looks like right now: the coordinator's knowledge plus the heartbeats of running attempts."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecutionStatus

from bertpar.answers import Answers, query
from bertpar.errors import NotFoundError
from bertpar.events import Failure, Progress
from bertpar.ledger import Ledger, ledger_of, until
from bertpar.states import Attempt, Order, RunState, SweepStatus, TrainingStatus
from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.records import run_name, training_id
from bertpar.workflows.training import TrainingWorkflow

_ENDED_BY_OTHERS = (
    WorkflowExecutionStatus.TERMINATED,
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT,
)

_WHILE_LEAVING: dict[Order, str] = {"pause": "pausing", "yield": "yielding", "cancel": "cancelling"}

_RUNS_AT_ONCE = 16
"""Questions in flight: a sweep of hundreds must not flood the server."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as a person or a script sees it."""

    state: RunState
    status: str
    """As RunState.status; `waiting` for a training without a slot; `pausing`, `yielding`, `cancelling` until it has."""
    attempts: tuple[Attempt, ...] = ()
    progress: Progress | None = None
    silent_seconds: float | None = None
    """For how long the running attempt has given no sign of life; None while that is nothing unusual."""

    @property
    def waiting(self) -> str | None:
        """What the running attempt waits for, in words; None while it works."""
        return self.progress.waiting if self.progress is not None and self.state.status == "training" else None

    @property
    def name(self) -> str:
        return run_name(self.state.run.swept, self.state.run.index)

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar status --json`."""
        state = self.state
        return {
            "run_id": state.run.run_id,
            "index": state.run.index,
            "overrides": list(state.run.overrides),
            "status": self.status,
            "priority": state.priority,
            "cancelled_by_user": state.cancelled_by_user,
            "waiting": self.waiting,
            "attempt": state.attempt,
            "step": state.step,
            "total_steps": state.total_steps,
            "metrics": state.metrics,
            "checkpoints": state.num_checkpoints,
            "mlflow_run_id": state.mlflow_run_id,
            "run_key": state.run_key,
            "reused": state.reused,
            "origin": state.origin,
            **asdict(ledger_of([state])),
            "forked_from": state.run.forked_from,
            "forks": list(state.forks),
            "failure": None if state.failure is None else vars(state.failure),
        }


@dataclass(frozen=True, kw_only=True)
class SweepView:
    """A whole sweep at one moment."""

    sweep: SweepStatus
    runs: tuple[RunView, ...] = field(default_factory=tuple)

    def mlflow_run_ids(self) -> list[str]:
        """Return the MLflow runs of the runs that have one, in their order."""
        return [run.state.mlflow_run_id for run in self.runs if run.state.mlflow_run_id is not None]

    def ledger(self) -> Ledger:
        """Return the compute time of all its runs."""
        return ledger_of(run.state for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar status SWEEP --json`."""
        return {
            "sweep_id": self.sweep.sweep_id,
            "status": self.sweep.status,
            "paused": self.sweep.paused,
            "budget_hours": self.sweep.options.budget_hours,
            "out_of_budget": self.sweep.out_of_budget,
            "mlflow_run_id": self.sweep.mlflow.run_id if self.sweep.mlflow else None,
            **asdict(self.ledger()),
            "runs": [run.as_json() for run in self.runs],
        }


async def observe(client: Client, sweep_id: str, answers: Answers | None = None) -> SweepView:
    """Return the sweep's present state; who looks again gives the same `answers`, and spares workers what it knows.

    Raises:
        NotFoundError: there is no such sweep.
        WorkflowStuckError: the sweep, or one of its trainings, cannot answer.
        RPCError: the server or the evaluation worker does not answer.
    """
    answers = answers or Answers()
    sweep, described = await answers.to(client, sweep_id, CoordinatorWorkflow.status)
    if sweep.status == "running" and described.status in _ENDED_BY_OTHERS:  # it cannot say so itself
        sweep = replace(sweep, status="failed")
    now = time.time()
    sweep = replace(sweep, runs=tuple(until(state, now) for state in sweep.runs))
    gate = asyncio.Semaphore(_RUNS_AT_ONCE)

    async def view(state: RunState) -> RunView:
        # Of a training that did not come to its end the coordinator knows only that.
        unfinished = state.status in ("failed", "cancelled") and state.best is None
        if state.status != "training" and not unfinished:
            return RunView(state=state, status=_WHILE_LEAVING[state.order] if state.order else state.status)
        async with gate:
            if unfinished:
                return await _look_back(client, state, answers)
            return await _observe_training(client, state, answers, sweep.options.heartbeat_timeout_seconds)

    return SweepView(sweep=sweep, runs=tuple(await asyncio.gather(*map(view, sweep.runs))))


async def find_run(client: Client, run_id: str) -> tuple[SweepStatus, RunState]:
    """Return a run with its sweep, as the coordinator knows them.

    Raises:
        NotFoundError: `run_id` is not SWEEP/INDEX, or there is no such sweep or run.
    """
    sweep_id, _, index = run_id.rpartition("/")
    if not sweep_id or not index.isdecimal():
        raise NotFoundError(f"{run_id} is no run: give SWEEP/INDEX, for example {run_id}/0; `bertpar ls` lists sweeps")
    sweep: SweepStatus = await query(client, sweep_id, CoordinatorWorkflow.status)
    for state in sweep.runs:
        if state.run.index == int(index):
            return sweep, state
    known = [state.run.index for state in sweep.runs]
    raise NotFoundError(f"sweep {sweep_id} has no run {index}; its runs: {known[0]} to {known[-1]}")


async def _look_back(client: Client, state: RunState, answers: Answers) -> RunView:
    try:
        known, _ = await answers.to(client, training_id(state.run.run_id), TrainingWorkflow.status)
    except NotFoundError:  # it failed, or was cancelled, before its training
        return RunView(state=state, status=state.status)
    seen = _with_training(state, known, None)
    return RunView(
        state=replace(seen, failure=state.failure or seen.failure), status=state.status, attempts=known.attempts
    )


async def _observe_training(
    client: Client, state: RunState, answers: Answers, heartbeat_timeout_seconds: float
) -> RunView:
    try:
        known, described = await answers.to(client, training_id(state.run.run_id), TrainingWorkflow.status)
    except NotFoundError:  # the coordinator has decided to start it, and is about to
        return RunView(state=state, status="waiting")
    pending = [a for a in described.raw_description.pending_activities if a.activity_type.name == "train"]
    started = any(a.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED for a in pending)
    payloads = [p for a in pending for p in a.heartbeat_details.payloads]
    progress = _progress_of(payloads[0].data) if payloads else None
    waits_there = progress is not None and progress.waiting is not None and not state.has_slot
    status = "waiting" if waits_there or (pending and not started) else "training"
    return RunView(
        state=_with_training(state, known, progress),
        status=_WHILE_LEAVING[state.order] if state.order else status,
        attempts=known.attempts,
        progress=progress,
        silent_seconds=unusual_silence(_silence_seconds(pending), heartbeat_timeout_seconds) if started else None,
    )


def unusual_silence(seconds: float, heartbeat_timeout_seconds: float) -> float | None:
    """Return `seconds` where heartbeats should have come meanwhile, and None where that says nothing.

    Temporal ends an attempt after the timeout: longer silences are those of clocks that differ.
    """
    return seconds if heartbeat_timeout_seconds / 2 < seconds < heartbeat_timeout_seconds * 2 else None


def _silence_seconds(pending: list[PendingActivityInfo]) -> float:
    signs = [sign.ToMicroseconds() / 1e6 for a in pending for sign in (a.last_started_time, a.last_heartbeat_time)]
    return time.time() - max(signs)


def _progress_of(data: bytes) -> Progress | None:
    plain = json.loads(data)
    return Progress(**plain) if plain else None


def _with_training(state: RunState, known: TrainingStatus, progress: Progress | None) -> RunState:
    latest = known.latest_checkpoint
    step = max(progress.step if progress else 0, latest.step if latest else 0)  # one that starts has done none yet
    return replace(
        state,
        mlflow_run_id=state.mlflow_run_id or known.mlflow_run_id,  # it may have ended before it was told
        attempt=known.attempts[-1].number if known.attempts else state.attempt,
        num_checkpoints=max(known.num_checkpoints, state.num_checkpoints),
        step=max(step, state.step),
        total_steps=progress.total_steps if progress else state.total_steps,
        metrics=progress.metrics if progress else state.metrics,
        failure=_last_cause(known),
    )


def _last_cause(known: TrainingStatus) -> Failure | None:
    causes = [attempt.cause for attempt in known.attempts if attempt.cause is not None]
    return causes[-1] if causes else None
