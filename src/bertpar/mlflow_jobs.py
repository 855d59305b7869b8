"""MLflow runs, as they cross borders: their tags, and the jobs that open and close them. Pure data, like events.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bertpar.events import CheckpointRef, EvaluateResult, SnapshotRef
from bertpar.spec import TrackingSpec

IDENTITY_TAG = "bertpar.id"
"""Tag by which an MLflow run is found again: the run's id, or the sweep's."""

SWEEP_TAG = "bertpar.sweep"
"""Tag with the id of the sweep, of its own MLflow run and of its runs'."""

SWEPT_TAG_PREFIX = "sweep."
"""Before each swept key, in the tags with its value."""

RUN_KEY_TAG = "bertpar.run_key"
"""Tag with the key of what a run computes (identity.py)."""

REUSED_TAG = "bertpar.reused_from"
"""Tag of a run that was not computed: the run whose result it shows."""

CONTINUES_TAG = "bertpar.continues"
"""Tag of a run that went on from another run's checkpoint: that run."""

FORKED_TAG = "bertpar.forked_from"
"""Tag of a fork: the run and step with whose weights it began, `RUN@STEP`."""

TEMPORAL_TAG = "bertpar.temporal_url"
"""Tag with Temporal's page of the run's or sweep's workflow."""


@dataclass(frozen=True, kw_only=True)
class CopiedRows:
    """Metric rows of another run that are this run's too: it shows its result, or went on from its checkpoint."""

    run_id: str
    last_step: int


@dataclass(frozen=True, kw_only=True)
class OpenRunJob:
    """Find or create the MLflow run that carries `identity` in its IDENTITY_TAG."""

    tracking: TrackingSpec
    identity: str
    """The run's id; the sweep's for its parent run."""
    name: str
    parent_identity: str | None
    tags: dict[str, str]
    store_root: str
    spec_key: str | None
    """Where the parameters come from; None for the sweep's parent run."""
    snapshot: SnapshotRef | None = None
    copied: CopiedRows | None = None


@dataclass(frozen=True, kw_only=True)
class MlflowRun:
    experiment_id: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """What MLflow is to be told of an evaluation."""

    checkpoint: CheckpointRef
    result: EvaluateResult
    timestamp_ms: int
    """The time under which metrics are logged: fixed by the workflow, so that a retry adds no second row."""
    model: bool = True
    """With the model's files; a reused result's lie with the run that made it."""


@dataclass(frozen=True, kw_only=True)
class CloseRunJob:
    """Bring an MLflow run to its end: what it does not have yet, and then its final status."""

    opening: OpenRunJob
    status: Literal["FINISHED", "FAILED", "KILLED"]
    tags: dict[str, str]
    evaluation: EvaluationRecord | None = None


@dataclass(frozen=True, kw_only=True)
class ReportJob:
    """Make the report of a sweep whose runs have all ended, and keep it with the sweep's own MLflow run."""

    opening: OpenRunJob
    """Of the sweep's own MLflow run; its identity is the sweep's id."""
    status: Literal["completed", "failed", "cancelled"]
    """How the sweep ends: it cannot say so itself yet."""
