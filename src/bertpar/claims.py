"""What is known of equal runs, as it crosses borders: claims, kept results, forecasts. Pure data, like events.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bertpar.events import CheckpointRef, Code, EvaluateResult, SnapshotRef, TrainResult
from bertpar.spec import CacheMode


@dataclass(frozen=True, kw_only=True)
class KeptResult:
    """What a run came to, kept under its key for every equal run."""

    run_id: str
    """The run that computed it."""
    training: TrainResult
    evaluation: EvaluateResult


@dataclass(frozen=True, kw_only=True)
class ClaimJob:
    """A run that is about to be computed."""

    store_root: str
    run_id: str
    spec_key: str
    snapshot: SnapshotRef
    code: Code
    cache: CacheMode
    verify: bool = False
    """Read every file of a result before it is reused: something was found damaged."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """What is there already of what a run computes."""

    run_key: str
    result: KeptResult | None = None
    """The whole of it."""
    resume_from: tuple[CheckpointRef, ...] = ()
    """Checkpoints of equal runs that did not come to their end, newest first. An attempt takes one of them if it is
    whole and of its own kind of machine: `TrainResult.continues` tells which."""
    origin: str | None = None
    """The run that made the result, or the newest of these checkpoints."""
    saved_seconds: float = 0.0
    """Wall time of training that need not be done again."""


@dataclass(frozen=True, kw_only=True)
class LookUpRun:
    run_id: str
    spec_key: str
    snapshot_request: str
    """As RunRef.snapshot_request."""


@dataclass(frozen=True, kw_only=True)
class LookUpJob:
    """Runs that may come to be submitted."""

    store_root: str
    runs: tuple[LookUpRun, ...]
    snapshots: dict[str, SnapshotRef]
    """By LookUpRun.snapshot_request: once each, for a thousand runs have to fit into one payload."""
    code: Code
    cache: CacheMode


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What would become of a run, were it submitted now."""

    run_id: str
    run_key: str
    verdict: Literal["new", "cached", "resume", "duplicate"]
    """Trained from step 0, not at all, from a checkpoint, or by another run that computes the same."""
    origin: str | None = None
    """The run whose result, checkpoint or work it would use."""
    reason: str | None = None
    """Why a new one is new: what keeps the nearest known run from being taken."""
    step: int = 0
    """Optimizer steps that are done."""
    total_steps: int = 0
    """Optimizer steps at most."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of a cached result."""
    seconds: float | None = None
    """Wall time of the training that is left, from the times of runs in the store; None where none is like it."""
    saved_seconds: float = 0.0
    held_by: str | None = None
    """The run that last set out to compute the same."""
