"""What is to be done, as frozen values: composed and checked once, trusted by everything after that.

Pure data: no I/O, no third-party import, so that workflows can use it inside Temporal's sandbox.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

SPEC_VERSION = 1
"""Raised whenever a field changes its meaning: a worker refuses the specs of another version."""

Task = Literal["classification", "regression"]
Schedule = Literal["linear", "cosine", "constant"]
ComputePrecision = Literal["fp32", "bf16"]
Precision = Literal["auto", "fp32", "bf16"]
"""auto is bf16 where the processor has it, else fp32."""
Padding = Literal["packed", "bucket", "dynamic", "max"]
"""How a step's examples are laid out; which examples, and their loss, is the same for all."""
ModelSource = Literal["package", "folder", "hub", "random"]
DataSource = Literal["packaged", "files", "hub"]
CacheMode = Literal["on", "read", "off"]
"""What a run may take from equal runs, and they from it: both, only the first, nothing."""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which pretrained encoder. `path` is a folder, a hub name, or (source=package) `distribution:folder`."""

    name: str
    source: ModelSource
    path: str
    revision: str | None = None
    weights_sha256: str | None = None
    num_layers: int | None = None
    """Keep only the first layers; None for all."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which examples, and how they become three tokenised splits."""

    name: str
    source: DataSource
    task: Task
    path: str | None = None
    """Hub dataset name (source=hub); packaged dataset name (source=packaged)."""
    config_name: str | None = None
    revision: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str
    text_pair_column: str | None = None
    label_column: str
    id_column: str | None = None
    train_size: int | None = None
    """Number of examples to keep; None for all."""
    validation_size: int | None = None
    test_size: int | None = None
    validation_fraction: float
    """Share of the training rows that becomes validation where the source has none."""
    test_fraction: float
    split_seed: int
    max_length: int
    """Tokens per example, special tokens included; longer ones are truncated."""


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """AdamW and its schedule."""

    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    warmup_ratio: float
    """Share of all optimizer steps over which the learning rate rises linearly from 0."""
    schedule: Schedule
    clip: float | None
    """Largest global gradient norm; None for no clipping."""


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """How long and in which pieces to train."""

    max_epochs: int
    batch_size: int
    """Examples per forward pass (micro-batch)."""
    accumulate: int
    """Micro-batches per optimizer step."""
    eval_batch_size: int
    precision: Precision
    num_threads: int | None
    """CPU threads of a training process, on whose number the bits of its results depend. None: all there are."""
    max_steps: int | None
    """Optimizer steps at most; None for max_epochs alone."""
    validate_every_n_steps: int | None
    """Validate also every so many optimizer steps; None for the ends of epochs alone."""
    early_stopping_patience: int | None
    """Stop after so many validations without improvement of the monitored metric; None for never."""
    early_stopping_min_delta: float
    log_every_n_steps: int
    padding: Padding
    compile: bool
    """Have torch.compile make the model's kernels."""
    devices: int = 1
    """Processes, each with a device of its own, among which the examples of a step are divided."""
    eval_precision: Precision = "fp32"
    """Of the test split's score and of predictions; validations are computed as the training is."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    """Which checkpoints to make and to keep."""

    every_n_steps: int | None
    """Also between validations, every so many optimizer steps; None for after validations alone."""
    keep: int
    """How many of the best (by `monitor`) to keep, beside the last two."""
    monitor: str
    mode: Literal["min", "max"]


@dataclass(frozen=True, kw_only=True)
class TemporalSpec:
    """Where orchestration happens. `address` None means the local stack, which is started when needed."""

    address: str | None
    namespace: str | None
    profile: str | None
    training_queue: str
    eval_queue: str
    heartbeat_timeout_seconds: float
    max_attempts: int
    """Attempts at one run's training, for failures of the run itself."""


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where MLflow keeps runs."""

    uri: str
    experiment: str


@dataclass(frozen=True, kw_only=True)
class ResumeSpec:
    """What a resumed training may do that an undisturbed one would not."""

    allow_inexact: bool
    """Go on where processor, libraries or threads are other than the checkpoint's, and say so in MLflow."""
    nan_lr_factor: float | None
    """Try once more after a NaN loss, from the last checkpoint, with the learning rate times this; None: never."""


@dataclass(frozen=True, kw_only=True)
class StartSpec:
    """The checkpoint of another run, whose weights a fork begins with; its optimizer and schedule begin anew."""

    run_id: str
    step: int
    key: str
    """Its folder in the store."""
    digest: str


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One configuration, resolved: everything that decides what its training computes."""

    version: int = SPEC_VERSION
    seed: int
    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    trainer: TrainerSpec
    checkpoint: CheckpointSpec
    config: dict[str, Any]
    """The resolved Hydra configuration as the user wrote it, for the record only."""
    start: StartSpec | None = None
    """Of a fork; None for a run that begins with the pretrained model."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a run takes of the worker that computes it."""

    devices: int = 1
    num_threads: int | None = 1
    """CPU threads for each of the devices; None for all that the worker has, together."""


SMALLEST_DEMAND: Final = Demand()


def demand_of(run: RunSpec) -> Demand:
    """Return what the run's training takes of a worker."""
    return Demand(devices=run.trainer.devices, num_threads=run.trainer.num_threads)


def digest_json(value: Any) -> str:
    """Return the sha256 of `value` as canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def snapshot_request_key(data: DataSpec, model: ModelSpec) -> str:
    """Return the hash that tells distinct dataset preparations of one sweep apart, before any data is read."""
    tokenizer = {k: v for k, v in asdict(model).items() if k != "num_layers"}
    return digest_json({"data": asdict(data), "tokenizer": tokenizer})


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `config` with dotted keys and no nesting."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
