"""Trains one configuration twice, undisturbed and with kills, and compares. Real processes, real kills, no Temporal."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bertpar import faults, tracking
from bertpar.checkpoints import find_checkpoints
from bertpar.codec import from_json, publish_spec
from bertpar.errors import ERRORS, BertparError, ProcessDiedError
from bertpar.events import (
    CheckpointRef,
    CheckpointSaved,
    EvaluateJob,
    EvaluateResult,
    Progress,
    SnapshotJob,
    SnapshotRef,
    TrainJob,
    TrainResult,
)
from bertpar.mlflow_jobs import CloseRunJob, EvaluationRecord, OpenRunJob
from bertpar.paths import HOME_VARIABLE, Home
from bertpar.process import EventHandler, JobFailed, JobStarter, run_job
from bertpar.spec import RunSpec, TrackingSpec, demand_of
from bertpar.store import Store
from bertpar.training.plan import BatchPlan, is_checkpoint_step, plan_batches, validation_steps
from bertpar.training.selection import checkpoints_to_prune
from bertpar.verify.compare import differences, unplanned_checkpoints
from bertpar.verify.compare import faults as own_faults
from bertpar.verify.killing import Kill, arrivals_until, plan_kills
from bertpar.verify.outcome import RunOutcome, find_mlflow_runs, read_outcome
from bertpar.verify.weights import Weights, read_weights

T = TypeVar("T")
Say = Callable[[str], None]

UNDISTURBED, KILLED = "undisturbed", "killed"
_KEEP_ALL = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The two outcomes side by side."""

    undisturbed: RunOutcome
    killed: RunOutcome
    kills: tuple[Kill, ...]
    """Those that hit: a run that stops early may end before the last planned ones."""
    problems: tuple[str, ...]
    """Where they differ, the earliest step first."""


async def verify_resume(spec: RunSpec, home: Home, num_kills: int, seed: int, say: Say) -> Verdict:
    """Train `spec` in `home`, once undisturbed and once killed at seeded random moments, and compare all results.

    Raises:
        BertparError: the configuration cannot be trained at all.
    """
    orders = home.root / "orders"
    orders.mkdir(parents=True)
    quiet, deadly = (
        JobStarter(home.logs / side, {HOME_VARIABLE: str(home.root), **environment})
        for side, environment in ((UNDISTURBED, {}), (KILLED, {faults.VARIABLE: str(orders)}))
    )
    async with aclosing(quiet), aclosing(deadly):
        lab = await _prepare(spec, home, quiet)
        plan = plan_batches(lab.snapshot.num_examples["train"], spec.seed, spec.trainer)
        commits = commit_steps(spec, plan)
        kills = plan_kills(num_kills, seed, plan.total_steps, commits)
        say(f"{plan.total_steps} steps, {len(commits)} checkpoints; {len(kills)} kills (seed {seed}):")
        say("  " + ", ".join(f"step {kill.step} at {kill.point}" for kill in kills))
        undisturbed, killed = _Side(lab, UNDISTURBED, quiet, say), _Side(lab, KILLED, deadly, say)
        executioner = _Executioner(kills, commits, orders)
        trainings = undisturbed.train(None), killed.train(executioner)
        if len(os.sched_getaffinity(0)) >= 2 * (spec.trainer.num_threads or 1):
            await asyncio.gather(*trainings)
        else:
            for training in trainings:
                await training
        say("both are trained; scoring them on the test split")
        one, other = await undisturbed.outcome(quiet), await killed.outcome(quiet)
        return judge(one, other, kills=executioner.done, commits=commits)


def judge(undisturbed: RunOutcome, killed: RunOutcome, *, kills: Sequence[Kill], commits: Sequence[int]) -> Verdict:
    """Compare the two sides; `commits` are the steps after which each must have made a checkpoint. Pure."""
    problems = differences(undisturbed, killed)
    for side in (undisturbed, killed):
        problems += [f"{side.run_id}: {fault}" for fault in (*own_faults(side), *unplanned_checkpoints(side, commits))]
    if not kills:
        problems.append("no kill hit: nothing is proven")
    return Verdict(undisturbed=undisturbed, killed=killed, kills=tuple(kills), problems=tuple(problems))


def commit_steps(spec: RunSpec, plan: BatchPlan) -> list[int]:
    """Return the steps after which a checkpoint is made, unless the run stops early."""
    validations = set(validation_steps(plan, spec.trainer))
    return [s for s in range(1, plan.total_steps + 1) if s in validations or is_checkpoint_step(s, spec.checkpoint)]


@dataclass(frozen=True, kw_only=True)
class _Lab:
    """What both trainings share."""

    home: Home
    store: Store
    spec: RunSpec
    spec_key: str
    snapshot: SnapshotRef
    tracking: TrackingSpec


async def _prepare(spec: RunSpec, home: Home, starter: JobStarter) -> _Lab:
    store = Store(str(home.store), home.cache)
    # No checkpoint may vanish before its digest is taken. What is kept decides nothing about the training.
    kept = replace(spec, checkpoint=replace(spec.checkpoint, keep=_KEEP_ALL))
    spec_key = publish_spec(store, kept)
    job = SnapshotJob(store_root=store.root, spec_key=spec_key)
    snapshot = await _run(home, starter, "snapshot", job, SnapshotRef)
    where = TrackingSpec(uri=home.mlflow_uri, experiment="verify-resume")
    return _Lab(home=home, store=store, spec=spec, spec_key=spec_key, snapshot=snapshot, tracking=where)


class _Executioner:
    """Orders each attempt of the killed side to die."""

    def __init__(self, planned: Sequence[Kill], commits: Sequence[int], orders: Path) -> None:
        self._planned = list(planned)
        self._commits = commits
        self._orders = orders
        self._pending: Kill | None = None
        self.done: list[Kill] = []

    def order_next(self, resumed_from: int) -> None:
        """Have the attempt that starts from step `resumed_from` die at the next planned kill, if there is one."""
        for left in self._orders.iterdir():
            left.unlink()
        self._pending = self._planned.pop(0) if self._planned else None
        if self._pending is not None:
            num_passes = arrivals_until(self._pending, resumed_from, self._commits) - 1
            faults.order(self._orders, self._pending.point, *["pass"] * num_passes, "kill")

    def killed(self) -> Kill | None:
        """Return the kill that the last attempt died of, or None if its order is still there."""
        if self._pending is None or any(self._orders.glob(f"{self._pending.point}.*")):
            return None
        self.done.append(self._pending)
        return self._pending


class _Side:
    """One of the two trainings: its attempts, and what they left."""

    def __init__(self, lab: _Lab, name: str, starter: JobStarter, say: Say) -> None:
        self._lab = lab
        self._name = name
        self._run_id = f"{name}/0"
        self._starter = starter
        self._say = say
        self._known: dict[str, CheckpointRef] = {}
        """What was signalled and is not pruned."""
        self._weights: dict[int, Weights] = {}
        self._torn_steps: set[int] = set()
        self._result: TrainResult | None = None
        self._estimated = False

    async def train(self, executioner: _Executioner | None) -> None:
        """Train to the end, each attempt going on from what those before it have signalled."""
        await asyncio.to_thread(tracking.open_run, self._opening(), self._lab.store)
        attempt = 0
        while self._result is None:
            attempt += 1
            if executioner is not None:
                executioner.order_next(self._newest_step())
            try:
                job = self._train_job(attempt)
                self._result = await _run(self._lab.home, self._starter, "train", job, TrainResult, self._on_event)
            except ProcessDiedError:
                kill = executioner.killed() if executioner is not None else None
                if kill is None:
                    raise
                self._say(
                    f"{self._name}: kill -9 at step {kill.step}, {kill.point}; on from step {self._newest_step()}"
                )
        self._say(f"{self._name}: trained, {self._result.last.step} steps in {attempt} attempts")

    async def outcome(self, starter: JobStarter) -> RunOutcome:
        """Score the best checkpoint on the test split, and return everything that the run came to."""
        assert self._result is not None
        scored = await _run(self._lab.home, starter, "evaluate", self._evaluate_job(), EvaluateResult)
        record = EvaluationRecord(checkpoint=self._result.best, result=scored, timestamp_ms=0)
        closing = CloseRunJob(opening=self._opening(), status="FINISHED", tags={}, evaluation=record)
        await asyncio.to_thread(tracking.close_run, closing, self._lab.store)
        uri = self._lab.tracking.uri
        mlflow_runs = (await asyncio.to_thread(find_mlflow_runs, uri, self._run_id)).get(self._run_id, [])
        found = await asyncio.to_thread(read_outcome, self._lab.store, uri, self._run_id, mlflow_runs)
        return replace(found, weights=self._weights, torn_steps=tuple(sorted(self._torn_steps)))

    def _opening(self) -> OpenRunJob:
        return OpenRunJob(
            tracking=self._lab.tracking,
            identity=self._run_id,
            name=self._name,
            parent_identity=None,
            tags={},
            store_root=self._lab.store.root,
            spec_key=self._lab.spec_key,
            snapshot=self._lab.snapshot,
        )

    def _train_job(self, attempt: int) -> TrainJob:
        newest_first = sorted(self._known.values(), key=lambda c: (c.step, c.attempt), reverse=True)
        return TrainJob(
            store_root=self._lab.store.root,
            run_id=self._run_id,
            spec_key=self._lab.spec_key,
            snapshot=self._lab.snapshot,
            attempt=attempt,
            resume_from=tuple(newest_first),
            tracking=self._lab.tracking,
            demand=demand_of(self._lab.spec),
        )

    def _evaluate_job(self) -> EvaluateJob:
        assert self._result is not None
        return EvaluateJob(
            store_root=self._lab.store.root,
            run_id=self._run_id,
            spec_key=self._lab.spec_key,
            snapshot=self._lab.snapshot,
            checkpoint=self._result.best,
        )

    def _newest_step(self) -> int:
        """Return the step of the newest committed checkpoint, whether or not its attempt came to signal it."""
        return max((checkpoint.step for checkpoint in find_checkpoints(self._lab.store, self._run_id)), default=0)

    async def _on_event(self, kind: str, value: Any) -> None:
        if kind == "checkpoint":
            saved = from_json(CheckpointSaved, json.dumps(value)).checkpoint
            if saved.step not in self._weights or self._lab.store.find(saved.key) is not None:
                await asyncio.to_thread(self._examine, saved)
        elif kind == "progress":
            self._estimate(from_json(Progress, json.dumps(value)))
        elif kind == "note":
            self._say(f"{self._name}: {value}")

    def _examine(self, saved: CheckpointRef) -> None:
        """Take the digests of a new checkpoint's weights, and delete what the user's own settings would not keep."""
        weights = read_weights(self._lab.store.fetch(saved.key, digest=saved.digest))
        if self._weights.setdefault(saved.step, weights) != weights:
            self._torn_steps.add(saved.step)
        self._known[saved.key] = saved
        for pruned in checkpoints_to_prune(list(self._known.values()), self._lab.spec.checkpoint):
            self._lab.store.remove(pruned.key)
            del self._known[pruned.key]

    def _estimate(self, progress: Progress) -> None:
        """Say once, when the speed is known, how long it takes."""
        if self._name == UNDISTURBED and not self._estimated and progress.seconds_per_step is not None:
            self._estimated = True
            seconds = progress.seconds_per_step * (progress.total_steps - progress.step)
            self._say(f"about {_duration(seconds)} without the kills")


async def _ignore(kind: str, value: Any) -> None:
    pass


async def _run(
    home: Home, starter: JobStarter, kind: str, job: Any, result_type: type[T], on_event: EventHandler = _ignore
) -> T:
    try:
        result = await run_job(starter, kind, job, on_event, log_file=home.logs / f"{kind}.log")
    except JobFailed as error:
        raise ERRORS.get(error.failure.error_type, BertparError)(error.failure.message) from error
    return from_json(result_type, json.dumps(result))


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(1.0, seconds):.0f} s"
