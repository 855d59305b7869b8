"""Specifications that tests take as they are, or with changes to what they are about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bertpar.events import Code
from bertpar.spec import OptimSpec, ResumeSpec, TrackingSpec, TrainerSpec
from bertpar.states import RunRef, SweepOptions

OPTIM = OptimSpec(
    lr=0.1, weight_decay=0.0, beta1=0.9, beta2=0.999, eps=1e-8, warmup_ratio=0.2, schedule="linear", clip=None
)
TRAINER = TrainerSpec(
    max_epochs=1,
    batch_size=4,
    accumulate=1,
    eval_batch_size=8,
    precision="fp32",
    num_threads=1,
    max_steps=None,
    validate_every_n_steps=None,
    early_stopping_patience=None,
    early_stopping_min_delta=0.0,
    log_every_n_steps=1,
    padding="packed",
    compile=False,
)
OPTIONS = SweepOptions(
    store_root="/nowhere",
    tracking=TrackingSpec(uri="sqlite://", experiment="test"),
    training_queue="training",
    eval_queue="eval",
    heartbeat_timeout_seconds=2.0,
    max_attempts=3,
    max_parallel=None,
    resume=ResumeSpec(allow_inexact=False, nan_lr_factor=None),
    temporal_ui=None,
    code=Code(digest="code", versions={}),
)


def run_ref(run_id: str, **changes: Any) -> RunRef:
    """Return the run SWEEP/INDEX of a sweep over lr."""
    index = int(run_id.rpartition("/")[2])
    ref = RunRef(
        run_id=run_id,
        index=index,
        overrides=(f"lr={index}",),
        swept={"lr": str(index)},
        spec_key=f"specs/{index}",
        snapshot_request="one",
        objective="val/accuracy",
        mode="max",
    )
    return replace(ref, **changes)
