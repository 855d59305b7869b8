"""Inputs, states and results of workflows. Pure data, like spec.py and events.py; references travel, never data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bertpar.claims import Claimed
from bertpar.events import AttemptEnded, CheckpointRef, Code, Failure, PredictJob, SnapshotRef, TrainResult
from bertpar.mlflow_jobs import MlflowRun
from bertpar.spec import SMALLEST_DEMAND, CacheMode, Demand, ResumeSpec, TrackingSpec

RunStatus = Literal[
    "queued", "preparing", "training", "evaluating", "reporting", "completed", "failed", "cancelled", "paused"
]
"""`reporting`: everything is computed, and MLflow is being told. `paused`: without a slot until it is resumed."""

IN_FLIGHT: frozenset[RunStatus] = frozenset({"preparing", "training", "evaluating", "reporting"})

TERMINAL: frozenset[RunStatus] = frozenset({"completed", "failed", "cancelled"})

Priority = Literal["normal", "high"]
"""`high`: an urgent run, which takes the next free slot."""

Order = Literal["pause", "yield", "cancel"]
"""Why a run in flight is to leave its slot, and thereby what becomes of it then: paused, queued or cancelled."""


@dataclass(frozen=True, kw_only=True)
class RunRef:
    """One run of a sweep, small: its specification lies in the store."""

    run_id: str
    """`<sweep_id>/<index>`"""
    index: int
    overrides: tuple[str, ...]
    swept: dict[str, str]
    """The overridden keys that differ between the sweep's runs, with this run's values."""
    spec_key: str
    snapshot_request: str
    """Equal for runs that share their data preparation (spec.snapshot_request_key)."""
    objective: str
    """The validation metric by which runs are ranked."""
    mode: Literal["min", "max"]
    provenance: str | None = None
    """Store folder of what it takes to repeat the run (provenance.py)."""
    forked_from: str | None = None
    """`RUN@STEP`: the checkpoint whose weights a fork begins with."""
    demand: Demand = SMALLEST_DEMAND
    """What its training takes of a worker."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep is run: nothing here changes what its runs compute."""

    store_root: str
    tracking: TrackingSpec
    training_queue: str
    eval_queue: str
    heartbeat_timeout_seconds: float
    max_attempts: int
    max_parallel: int | None
    """Runs in flight at most; None for as many as workers have slots."""
    resume: ResumeSpec
    temporal_ui: str | None
    """Base URL of Temporal's web page with the namespace, for links."""
    code: Code
    cache: CacheMode = "on"
    budget_hours: float | None = None
    """Compute time of all runs together after which the sweep stops (ledger.py); None for no limit."""


def tracking_queue(eval_queue: str) -> str:
    """Return the task queue of the calls to MLflow, which the workers of `eval_queue` serve with slots of their own."""
    return f"{eval_queue}-tracking"


@dataclass(frozen=True, kw_only=True)
class RunBatch:
    """What one `launch()` adds to a sweep. Adding the same runs again changes nothing."""

    runs: tuple[RunRef, ...]
    final: bool
    """No batch follows: the sweep ends with its last run, whether or not a client is there."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt as the workflow remembers it."""

    number: int
    resumed_from_step: int
    cause: Failure | None = None
    """Why it ended; None while it runs or when it succeeded."""


@dataclass(frozen=True, kw_only=True)
class Adjustments:
    """What failures have changed about a run's training, for all attempts that follow."""

    batch_divisor: int = 1
    """Into how many parts each micro-batch is cut."""
    lr_scale: float = 1.0
    """What every learning rate is multiplied by."""


@dataclass(frozen=True, kw_only=True)
class TrainingInput:
    run: RunRef
    options: SweepOptions
    snapshot: SnapshotRef
    sweep_id: str
    claimed: Claimed | None = None
    """What equal runs have done of it."""
    num_earlier_attempts: int = 0
    """Numbers that earlier executions have used: displaced ones, say, or one whose best checkpoint was then damaged."""
    adjustments: Adjustments = Adjustments()
    tells_end: bool = True
    """The sweep is to hear by signal of the end of the attempt that succeeds, too; else the output tells it."""


@dataclass(frozen=True, kw_only=True)
class TrainingStatus:
    """Answer to TrainingWorkflow's `status`."""

    run_id: str
    attempts: tuple[Attempt, ...]
    latest_checkpoint: CheckpointRef | None
    num_checkpoints: int
    mlflow_run_id: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingOutput:
    result: TrainResult
    attempts: tuple[Attempt, ...]
    """Those of this execution."""
    num_checkpoints: int
    mlflow_run_id: str | None
    """None where MLflow has not answered yet."""
    adjustments: Adjustments = Adjustments()
    ended: AttemptEnded | None = None
    """The end of the attempt that succeeded; None where a signal has told of it."""


@dataclass(frozen=True, kw_only=True)
class TrainingLeft:
    """Output of a training that was told to leave its slot: another execution goes on from its newest checkpoint."""

    step: int
    """That of the newest checkpoint; 0 where there is none."""
    num_checkpoints: int
    mlflow_run_id: str | None
    adjustments: Adjustments


@dataclass(frozen=True, kw_only=True)
class EvaluationInput:
    run: RunRef
    options: SweepOptions
    snapshot: SnapshotRef
    training: TrainResult
    """Its best checkpoint is scored."""


@dataclass(frozen=True, kw_only=True)
class InferenceInput:
    job: PredictJob
    heartbeat_timeout_seconds: float


@dataclass(frozen=True, kw_only=True)
class PlanInput:
    runs: tuple[RunRef, ...]
    options: SweepOptions


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run as the coordinator knows it."""

    run: RunRef
    status: RunStatus = "queued"
    mlflow_run_id: str | None = None
    attempt: int = 0
    num_checkpoints: int = 0
    step: int = 0
    total_steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """`val/...` of the best checkpoint and `test/...`."""
    best: CheckpointRef | None = None
    failure: Failure | None = None
    run_key: str | None = None
    """What the run computes (identity.py); None before its data is there."""
    origin: str | None = None
    """The run whose result it shows, or whose checkpoint it went on from."""
    reused: bool = False
    """Nothing was computed: the result is that of `origin`."""
    saved_seconds: float = 0.0
    """Wall time of training that equal runs had done."""
    evaluation_key: str | None = None
    """Store folder of the evaluation; another run's where the result is reused."""
    forks: tuple[str, ...] = ()
    """Runs of the same sweep that began with the weights of a checkpoint of this one."""
    priority: Priority = "normal"
    order: Order | None = None
    """What it was told and has not done yet."""
    has_slot: bool = False
    """An attempt at its training has begun; before that it waits for a worker."""
    cancelled_by_user: bool = False
    """By itself, not with its sweep."""
    adjustments: Adjustments = Adjustments()
    slot_since: float | None = None
    """Since when an attempt at its training holds a slot, in seconds since 1970."""
    spent_seconds: float = 0.0
    """For how long its attempts that have ended held a slot (ledger.py)."""
    lost_seconds: float = 0.0
    """What of that came to nothing."""
    stopped_early_seconds: float = 0.0
    """What the steps would have taken that early stopping left out."""


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """Input of CoordinatorWorkflow, and what it carries over when it continues as new."""

    sweep_id: str
    name: str
    options: SweepOptions
    runs: tuple[RunState, ...] = ()
    closed: bool = False
    """No batch follows."""
    snapshots: dict[str, SnapshotRef] = field(default_factory=dict)
    """By RunRef.snapshot_request."""
    mlflow: MlflowRun | None = None
    paused: str | None = None
    """Why no further run is started, until somebody resumes the sweep."""
    may_pause: bool = True
    """It was not yet resumed after having paused by itself."""


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """Result of CoordinatorWorkflow; small, whatever the number of runs."""

    sweep_id: str
    status: Literal["running", "completed", "failed", "cancelled"]
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """Answer to CoordinatorWorkflow's `status`."""

    sweep_id: str
    name: str
    status: Literal["running", "completed", "failed", "cancelled"]
    runs: tuple[RunState, ...]
    mlflow: MlflowRun | None
    options: SweepOptions
    paused: str | None = None
    """Why no further run is started; None where runs are."""
    out_of_budget: str | None = None
    """That its budget is used up, in words: what was not done by then is not done."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a user asks of a sweep that runs."""

    kind: Literal["pause", "resume", "cancel", "drop", "priority", "retry", "set"]
    run: int | None = None
    """The index of the run that is meant; None for the whole sweep."""
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """drop: the runs whose overridden values are all among these."""
    priority: Priority = "normal"
    preempt: bool = False
    """priority: have the least advanced training that runs yield its slot."""
    least_advanced: tuple[int, ...] = ()
    """priority: the trainings that run, least advanced first, as the client sees them: only heartbeats tell."""
    setting: Literal["max_parallel", "budget_hours"] = "max_parallel"
    """set: the one of SweepOptions that gets its value of these."""
    max_parallel: int | None = None
    budget_hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What a command has changed."""

    runs: tuple[int, ...]
    """The runs that it concerns."""
    done: tuple[int, ...] = ()
    """drop: runs that match too, but are done and stay."""
    yields: int | None = None
    """priority: the run that yields its slot."""
