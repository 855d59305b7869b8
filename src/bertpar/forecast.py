"""What would become of runs, were they submitted now: which are there already, how near the others are, how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from bertpar.claims import Forecast, LookUpJob
from bertpar.codec import fetch_spec
from bertpar.events import CheckpointRef
from bertpar.identity import Identity, differences
from bertpar.results import (
    KnownRun,
    checkpoints_of_equal_runs,
    claims,
    find_result,
    identify,
    known_runs,
)
from bertpar.store import Store
from bertpar.training.plan import plan_batches

_WITHOUT_EFFECT_ON_TIME = ("seed", "optim.", "checkpoint.")
_COST_OF_A_STEP = (
    "trainer.batch_size",
    "trainer.accumulate",
    "trainer.precision",
    "trainer.num_threads",
    "model.num_layers",
)
_MAX_PHRASES = 3


def foresee(store: Store, job: LookUpJob) -> list[Forecast]:
    """Return what would become of each run of the job, without changing anything.

    Of a run that another one holds, whether that one still computes it is left to who can ask (`held_by`).
    """
    known = list(known_runs(store)) if job.cache != "off" else []
    first_of: dict[str, str] = {}
    return [_foresee_one(store, job, index, known, first_of) for index in range(len(job.runs))]


def _foresee_one(
    store: Store, job: LookUpJob, index: int, known: Sequence[KnownRun], first_of: dict[str, str]
) -> Forecast:
    run = job.runs[index]
    spec = fetch_spec(store, run.spec_key)
    snapshot = job.snapshots[run.snapshot_request]
    identity = identify(spec, snapshot, job.code)
    total_steps = plan_batches(snapshot.num_examples["train"], spec.seed, spec.trainer).total_steps
    seconds = expected_seconds(identity, total_steps, known)
    new = Forecast(run_id=run.run_id, run_key=identity.key, verdict="new", total_steps=total_steps, seconds=seconds)
    if job.cache == "off":
        return replace(new, reason="cache=off")
    if (result := find_result(store, identity.key)) is not None:
        training = result.training
        return replace(
            new,
            verdict="cached",
            origin=result.run_id,
            step=training.last.step,
            metrics=training.metrics | result.evaluation.metrics,
            seconds=0.0,
            saved_seconds=training.work_seconds,
        )
    holders = list(claims(store, identity.key).values())
    held_by = None
    if job.cache == "on":  # others wait for who offers its result, and for nobody else
        if (first := first_of.setdefault(identity.key, run.run_id)) != run.run_id:
            return replace(new, verdict="duplicate", origin=first, seconds=0.0)
        held_by = next(reversed(holders), None)
    if checkpoints := checkpoints_of_equal_runs(store, holders):
        return _resumed(replace(new, held_by=held_by), checkpoints[0])
    return replace(new, held_by=held_by, reason=nearest(identity, known))


def _resumed(new: Forecast, newest: CheckpointRef) -> Forecast:
    assert new.total_steps
    left = 1 - newest.step / new.total_steps
    seconds = None if new.seconds is None else new.seconds * left
    return replace(new, verdict="resume", origin=newest.run_id, step=newest.step, seconds=seconds)


def nearest(identity: Identity, known: Sequence[KnownRun]) -> str:
    """Return which known run comes nearest, and what keeps it from being taken."""
    found = [(differences(identity, run.identity), run) for run in known]
    found = [(parts, run) for parts, run in found if parts]
    if not found:
        return "nothing like it is in the store"
    parts, run = min(found, key=lambda item: (len(item[0]), sum(map(len, item[0].values())), item[1].run_id))
    told = "; ".join(f"{part}: {_told(phrases)}" for part, phrases in parts.items())
    return f"nearest is {run.run_id}, which differs in {told}"


def _told(phrases: Sequence[str]) -> str:
    more = f" and {len(phrases) - _MAX_PHRASES} more" if len(phrases) > _MAX_PHRASES else ""
    return ", ".join(phrases[:_MAX_PHRASES]) + more


def expected_seconds(identity: Identity, total_steps: int, known: Sequence[KnownRun]) -> float | None:
    """Return the wall time that the training takes, from finished runs; None where none is like it.

    The median of runs with the same data, model and trainer; else that of a step of runs whose steps are alike.
    """
    finished = [(run.identity, run.result.training) for run in known if run.result is not None]
    finished = [(other, training) for other, training in finished if other.model == identity.model]
    same = [
        training.work_seconds
        for other, training in finished
        if other.data == identity.data and _timed(other.config) == _timed(identity.config)
    ]
    if same:
        return median(same)
    per_step = [
        training.work_seconds / training.last.step
        for other, training in finished
        if all(other.config.get(key) == identity.config[key] for key in _COST_OF_A_STEP)
    ]
    return median(per_step) * total_steps if per_step else None


def _timed(config: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in config.items() if not key.startswith(_WITHOUT_EFFECT_ON_TIME)}
