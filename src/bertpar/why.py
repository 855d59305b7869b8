"""Why a run went as it did: its attempts, what ended each, and the steps done again; read from Temporal's history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client

from bertpar.answers import query
from bertpar.attempts import TrainingAttempt, slot_times, training_attempts
from bertpar.errors import CorruptError, StoreError
from bertpar.events import Failure, SnapshotRef
from bertpar.history import recall
from bertpar.identity import Identity
from bertpar.observe import find_run
from bertpar.results import identify_stored
from bertpar.states import RunState, RunStatus
from bertpar.store import Store
from bertpar.tries import EvaluationTries, evaluation_tries
from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.records import training_id


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What happened to a run until now."""

    run_id: str
    status: RunStatus
    failure: Failure | None
    attempts: tuple[TrainingAttempt, ...]
    evaluation: EvaluationTries | None
    run_key: str | None = None
    """None before its data is prepared."""
    identity: Identity | None = None
    """The parts of the key."""
    origin: str | None = None
    """The run whose result it shows, or whose checkpoint it went on from."""
    reused: bool = False

    @property
    def lost_steps(self) -> int:
        return sum(attempt.lost_steps or 0 for attempt in self.attempts)

    @property
    def train_seconds(self) -> float:
        """For how long the attempts that have ended held slots."""
        return sum(
            (attempt.ended_at - attempt.started_at).total_seconds()
            for attempt in self.attempts
            if attempt.started_at is not None and attempt.ended_at is not None
        )

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar why --json`."""
        plain = asdict(self) | {
            "totals": {
                "attempts": len(self.attempts),
                "train_seconds": round(self.train_seconds, 3),
                "lost_steps": self.lost_steps,
            }
        }
        as_written: dict[str, Any] = json.loads(json.dumps(plain, default=datetime.isoformat))
        return as_written


async def explain_run(client: Client, run_id: str, cache: Path) -> RunRecord:
    """Return what happened to the run SWEEP/INDEX.

    Raises:
        NotFoundError: there is no such run.
        RPCError: the server or the evaluation worker does not answer.
    """
    sweep, state = await find_run(client, run_id)
    slots = await read_slot_times(client, sweep.sweep_id)
    record = await explain_state(client, state, slots.get(state.run.index, {}))
    snapshots: dict[str, SnapshotRef] = await query(client, sweep.sweep_id, CoordinatorWorkflow.snapshots)
    if (snapshot := snapshots.get(state.run.snapshot_request)) is None:
        return record
    store, code = Store(sweep.options.store_root, cache), sweep.options.code
    try:
        identity = await asyncio.to_thread(identify_stored, store, state.run.spec_key, snapshot, code)
    except (StoreError, CorruptError):  # what happened is told all the same
        return record
    return replace(record, identity=identity)


async def read_slot_times(client: Client, sweep_id: str) -> dict[int, dict[int, datetime]]:
    """Return when a sweep's attempts got their slots, by the run's index and their number.

    Raises:
        RPCError: the server does not answer.
    """
    histories, _ = await recall(client, sweep_id)
    return slot_times(histories)


async def explain_state(client: Client, state: RunState, slots: Mapping[int, datetime]) -> RunRecord:
    """Return what happened to a run of which the coordinator's knowledge is at hand, and when its attempts got slots.

    Raises:
        RPCError: the server does not answer.
    """
    run_id = state.run.run_id
    histories, pending = await recall(client, training_id(run_id))
    return RunRecord(
        run_id=run_id,
        status=state.status,
        failure=state.failure,
        attempts=training_attempts(histories, slots, pending),
        evaluation=evaluation_tries(*await recall(client, f"{run_id}/eval")),
        run_key=state.run_key,
        origin=state.origin,
        reused=state.reused,
    )
