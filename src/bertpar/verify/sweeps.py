"""Two sweeps side by side, run by run, wherever they were done. No Temporal is needed for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertpar.errors import NotFoundError
from bertpar.mlflow_jobs import SWEPT_TAG_PREFIX
from bertpar.naming import choose
from bertpar.paths import Home
from bertpar.store import Store
from bertpar.tracking.address import sqlite_path, without_password
from bertpar.verify.compare import differences, differing_configuration, faults, not_compared
from bertpar.verify.outcome import RunOutcome, find_mlflow_runs, list_mlflow_sweeps, read_outcome


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the results of sweeps lie."""

    store_root: str
    tracking_uri: str
    cache: Path

    @classmethod
    def of(cls, home: Home, store_root: str | None = None, tracking_uri: str | None = None) -> Place:
        """Return the home's own store and MLflow database, unless others are named."""
        return cls(
            store_root=store_root or str(home.store), tracking_uri=tracking_uri or home.mlflow_uri, cache=home.cache
        )


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """What all runs of a sweep came to."""

    sweep_id: str
    parent_statuses: tuple[str, ...]
    """The status of every MLflow run that stands for the sweep as a whole: exactly one."""
    runs: dict[str, RunOutcome]
    """By what tells a run from its siblings: `lr=0.001,seed=2`."""


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """One run of one sweep beside its like of another."""

    name: str
    digest: str | None
    """Of the results; None where they differ."""
    num_rows: int
    problems: tuple[str, ...]
    """Where they differ, the earliest step first, and what is wrong with either by itself."""
    explanations: tuple[str, ...]
    """Differing settings, where there are problems."""
    not_compared: tuple[str, ...] = ()
    """What one of the two does not have any more, because it was deleted on purpose."""


def read_sweep(place: Place, sweep: str) -> SweepOutcome:
    """Read the results of every run of the sweep, whose id may be shortened to what is unambiguous in MLflow.

    Raises:
        NotFoundError: MLflow has no run of this sweep, or `sweep` stands for several.
        CorruptError: a checkpoint or an evaluation is damaged.
        TrackingError: MLflow cannot be reached.
    """
    sweep_id, by_identity = _find_sweep(place.tracking_uri, sweep)
    parents = by_identity.pop(sweep_id, [])
    store = Store(place.store_root, place.cache)
    runs: dict[str, RunOutcome] = {}
    for run_id in sorted(by_identity, key=lambda run_id: int(run_id.rpartition("/")[2])):
        mlflow_runs = by_identity[run_id]
        name = _name(mlflow_runs, run_id)
        name = name if name not in runs else f"{name} ({run_id.rpartition('/')[2]})"
        runs[name] = read_outcome(store, place.tracking_uri, run_id, mlflow_runs)
    return SweepOutcome(sweep_id=sweep_id, parent_statuses=tuple(parent.info.status for parent in parents), runs=runs)


def _find_sweep(tracking_uri: str, sweep: str) -> tuple[str, dict[str, list[Any]]]:
    """Return the sweep's id, and its MLflow runs by identity."""
    database = sqlite_path(tracking_uri)
    is_there = database is None or database.exists()  # one that is not there would be made
    if is_there and (found := find_mlflow_runs(tracking_uri, sweep)):
        return sweep, found
    try:
        sweep_id = choose(sweep, list_mlflow_sweeps(tracking_uri) if is_there else [])
    except NotFoundError as error:
        raise NotFoundError(
            f"no run of sweep {sweep} in MLflow at {without_password(tracking_uri)}: {error}. `bertpar ls` lists the "
            "sweeps. For another home set BERTPAR_HOME, or --other-home; for tracking.uri=... give --tracking"
        ) from error
    return sweep_id, find_mlflow_runs(tracking_uri, sweep_id)


def compare_sweeps(one: SweepOutcome, other: SweepOutcome) -> list[RunComparison]:
    """Return the comparison of every run with its like, and of the sweeps' own MLflow runs as a whole."""
    compared = [_compare_parents(one, other)]
    for name in dict.fromkeys((*one.runs, *other.runs)):
        a, b = one.runs.get(name), other.runs.get(name)
        if a is None or b is None:
            lacking = one.sweep_id if a is None else other.sweep_id
            compared.append(_differing(name, [f"{lacking} has no such run"]))
            continue
        own = [f"{run.run_id}: {fault}" for run in (a, b) for fault in faults(run)]
        problems = [*differences(a, b), *own]
        compared.append(
            RunComparison(
                name=name,
                digest=None if problems else a.digest,
                num_rows=0 if problems else len(a.rows),
                problems=tuple(problems),
                explanations=tuple(differing_configuration(a, b) if problems else ()),
                not_compared=tuple(not_compared(a, b)),
            )
        )
    return compared


def _compare_parents(one: SweepOutcome, other: SweepOutcome) -> RunComparison:
    name = "the sweep itself"
    problems = [
        f"{sweep.sweep_id}: {len(sweep.parent_statuses)} MLflow runs instead of one"
        for sweep in (one, other)
        if len(sweep.parent_statuses) != 1
    ]
    if one.parent_statuses != other.parent_statuses:
        problems.append(f"status in MLflow: {' '.join(one.parent_statuses)} against {' '.join(other.parent_statuses)}")
    if problems:
        return _differing(name, problems)
    return RunComparison(name=name, digest=None, num_rows=0, problems=(), explanations=())


def _differing(name: str, problems: list[str]) -> RunComparison:
    return RunComparison(name=name, digest=None, num_rows=0, problems=tuple(problems), explanations=())


def _name(mlflow_runs: Sequence[Any], run_id: str) -> str:
    tags = {key: value for run in mlflow_runs for key, value in run.data.tags.items()}
    swept = {k.removeprefix(SWEPT_TAG_PREFIX): v for k, v in tags.items() if k.startswith(SWEPT_TAG_PREFIX)}
    return ",".join(f"{key}={value}" for key, value in sorted(swept.items())) or f"run {run_id.rpartition('/')[2]}"
