"""What crosses borders: payloads of activities, signals and job processes, and their names, once.

Pure data, like spec.py. References into the store travel, never the data itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bertpar.spec import SMALLEST_DEMAND, Demand, Task, TrackingSpec

CHECKPOINT_SAVED = "checkpoint_saved"
"""Signal of TrainingWorkflow: a checkpoint is durable. Carries CheckpointSaved."""

ATTEMPT_STARTED = "attempt_started"
"""Signal of CoordinatorWorkflow: an attempt at a run's training has a slot. Carries AttemptStarted."""

ATTEMPT_ENDED = "attempt_ended"
"""Signal of CoordinatorWorkflow: an attempt at a run's training has given its slot back. Carries AttemptEnded.

Of the attempt that succeeded the training's output tells."""

TICK = "tick"
"""Event by which a job process says that it lives, whatever it does, every TICK_SECONDS."""

TICK_SECONDS = 1.0


# --- references into the store ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SnapshotRef:
    """A committed snapshot: `key` is its folder in the store, `digest` that of its manifest."""

    key: str
    digest: str
    task: Task
    label_names: tuple[str, ...]
    """Class names by label id; empty for regression."""
    num_examples: dict[str, int]
    """Examples by split name."""
    tokenizer_key: str
    """Store folder of the tokenizer's files."""
    model_digest: str = ""
    """Of the pretrained model that was found beside the tokenizer (model_folder.model_digest)."""


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """A committed checkpoint: `key` is its folder in the store, `digest` that of its manifest."""

    key: str
    digest: str
    step: int
    """Optimizer steps done, counted from 1 for the first."""
    attempt: int
    num_bytes: int
    metrics: dict[str, float]
    """Validation metrics at this step; empty where no validation fell on it."""
    work_seconds: float = 0.0
    """As TrainResult.work_seconds, until this step."""

    @property
    def run_id(self) -> str:
        """The run in whose folder it lies."""
        return self.key.removeprefix("runs/").partition("/checkpoints/")[0]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """The payload of `checkpoint_saved`: a durable checkpoint, and the keys that are deleted because of it."""

    checkpoint: CheckpointRef
    attempt: int
    """The attempt that says so: a later one than the checkpoint's own where it found what was never signalled."""
    pruned: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Code:
    """What computes a run: a process that runs another one refuses the job."""

    digest: str
    """Of the source that job processes run (code.job_code_digest)."""
    versions: dict[str, str]
    """Of the libraries that compute."""


@dataclass(frozen=True, kw_only=True)
class AttemptStarted:
    """The payload of `attempt_started`, sent before the attempt does anything."""

    run: int
    """Its index in the sweep."""
    attempt: int
    started_at: float | None = None
    """When it got its slot, in seconds since 1970, by the server's clock."""


@dataclass(frozen=True, kw_only=True)
class AttemptEnded:
    """The payload of `attempt_ended`, which the run's TrainingWorkflow sends: a killed attempt could not."""

    run: int
    """Its index in the sweep."""
    attempt: int
    seconds: float | None
    """For how long it held its slot; of a lost worker until its last heartbeat. None where nothing is known of it."""
    noticed_at: float
    """When its end was noticed, in seconds since 1970, by the server's clock."""
    kept_seconds: float
    """Wall time of training that need not be done again, in whatever attempts and runs it was done."""


# --- what a job process reports ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an attempt is; the details of its heartbeats."""

    attempt: int
    phase: Literal["starting", "training", "validating", "finishing"]
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    """Mean training loss of the newest step, in nats (classification) or squared units (regression)."""
    examples_per_second: float | None = None
    seconds_per_step: float | None = None
    """Mean wall time of a step of this attempt, checkpoints and validations included."""
    checkpoint_step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest validation metrics."""
    waiting: str | None = None
    """What the attempt waits for, in words; None while it works."""
    notes: tuple[str, ...] = ()
    """What the attempt has met that the user should know: a damaged file, an outage."""
    seconds: float | None = None
    """For how long it has held its slot; its activity adds this."""


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One value of one metric. MLflow tells rows apart by all four: a new time makes a second row."""

    key: str
    value: float
    step: int
    timestamp_ms: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something failed. `error_type` is a name from errors.py, or the class name of a library's exception."""

    error_type: str
    message: str
    traceback: str | None = None
    step: int | None = None
    """The optimizer step at which it happened, where the process could tell."""
    seconds: float | None = None
    """For how long what failed had held its slot, where that is known; for a lost worker until its last heartbeat."""

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


# --- inputs and results of activities ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SnapshotJob:
    """The preparation of the data of the run whose RunSpec lies at `spec_key`."""

    store_root: str
    spec_key: str


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One attempt at a run's training."""

    store_root: str
    run_id: str
    spec_key: str
    """Store folder of the run's RunSpec."""
    snapshot: SnapshotRef
    attempt: int
    resume_from: tuple[CheckpointRef, ...]
    """Known checkpoints, newest first: the first whose digest verifies is used. Empty: from step 0."""
    tracking: TrackingSpec
    allow_inexact: bool = False
    """Go on with a checkpoint of another kind of machine or library, and say so in MLflow."""
    batch_divisor: int = 1
    """Cut each micro-batch into so many parts: the same step in less memory."""
    lr_scale: float = 1.0
    """Multiply every learning rate by this."""
    code: Code | None = None
    """What the run is to be trained with; None for whatever the process runs."""
    demand: Demand = SMALLEST_DEMAND
    """What it takes of its worker."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    total_steps: int
    stopped_early: bool
    best: CheckpointRef
    last: CheckpointRef
    metrics: dict[str, float]
    """Validation metrics of the best checkpoint."""
    resumed_from_step: int
    train_seconds: float
    """Wall time for which the last attempt held its slot."""
    inexact: tuple[str, ...] = ()
    """What makes this result another than that of an undisturbed run, one sentence each; normally empty."""
    work_seconds: float = 0.0
    """Wall time of the steps, validations and checkpoints that led here, in whatever attempts and runs: nothing that
    was lost on the way."""
    continues: CheckpointRef | None = None
    """The equal run's checkpoint that it went on from; None for a run that began at step 0."""
    resumed_work_seconds: float = 0.0
    """What of it the last attempt went on from."""


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    store_root: str
    run_id: str
    spec_key: str
    snapshot: SnapshotRef
    checkpoint: CheckpointRef
    code: Code | None = None
    """As TrainJob.code."""
    kept_with: TrainResult | None = None
    """The training whose result is then kept for equal runs of other sweeps; None: it is not kept."""
    demand: Demand = SMALLEST_DEMAND
    """That of its training; on one device, and no more than its worker has."""


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    key: str
    """Store folder with predictions.jsonl, report.json, confusion_matrix.png."""
    digest: str
    metrics: dict[str, float]
    """`test/...` by name, interval bounds included."""


@dataclass(frozen=True, kw_only=True)
class PredictJob:
    store_root: str
    spec_key: str
    snapshot: SnapshotRef
    checkpoint: CheckpointRef
    input_key: str
    """Store folder with input.jsonl: objects with `text` and, for pairs, `text_pair`."""
    output_key: str
    """Store folder to publish, with output.jsonl: the input plus `label` and `probabilities`, or `score`."""
    demand: Demand = SMALLEST_DEMAND
    """As EvaluateJob.demand."""


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    key: str
    num_examples: int
