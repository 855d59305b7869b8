"""One attempt at a run's training, from a TrainJob to a TrainResult."""

from __future__ import annotations

import logging
import time
import warnings

import pytorch_lightning as pl
import torch
from transformers.utils.logging import disable_progress_bar

from bertpar.codec import fetch_spec
from bertpar.data.snapshot import open_split
from bertpar.errors import ConfigError
from bertpar.events import CheckpointRef, Progress, TrainJob, TrainResult
from bertpar.jobs import Emit
from bertpar.models import load_classifier, load_tokenizer, resolve_model
from bertpar.spec import RunSpec
from bertpar.store import Store
from bertpar.training.batches import EvaluationBatches, PlannedSteps
from bertpar.training.callbacks import RunRecorder
from bertpar.training.module import Classifier
from bertpar.training.outbox import Outbox
from bertpar.training.plan import plan_batches, validation_steps
from bertpar.training.selection import best_validation
from bertpar.training.state import TrainingState, checkpoints_folder, find_checkpoints, restore_newest

_MAX_CHECKPOINTS = 9000
"""Temporal takes 10,000 signals for one workflow execution."""


def train(job: TrainJob, store: Store, emit: Emit) -> TrainResult:
    """Train from the newest usable checkpoint, of those the workflow knows and those it was never told of, to the end.

    Raises:
        NotANumberError, DataError, ModelError: final; the same attempt would fail again.
        StoreError, TrackingError: a service is away.
        PreemptedError: SIGTERM asked to stop; everything up to the present step is durable.
    """
    started = time.monotonic()
    emit("progress", Progress(attempt=job.attempt, phase="starting"))
    spec = fetch_spec(store, job.spec_key)
    _configure_process(spec)

    def note(text: str) -> None:
        emit("note", text)

    train_data = open_split(store, job.snapshot, "train")
    validation_data = open_split(store, job.snapshot, "validation")
    plan = plan_batches(len(train_data), spec.seed, spec.trainer)
    legs = validation_steps(plan, spec.trainer)
    _check_number_of_checkpoints(spec, plan.total_steps, len(legs))
    store.remove_leftovers(checkpoints_folder(job.run_id))
    tokenizer = load_tokenizer(store.fetch(job.snapshot.tokenizer_key))

    model = load_classifier(
        spec.model,
        resolve_model(spec.model),
        num_labels=max(1, len(job.snapshot.label_names)),
        label_names=job.snapshot.label_names,
        task=job.snapshot.task,
        seed=spec.seed,
    )
    module = Classifier(model, spec, plan.total_steps)
    candidates = find_checkpoints(store, job.run_id, job.resume_from)
    state, optimizer_state = restore_newest(store, candidates, model, note)
    resumed_from = module.step = state.step
    outbox = Outbox(job.tracking.uri, job.mlflow_run_id, note)
    recorder = RunRecorder(job, spec, store, state, optimizer_state, legs, outbox, emit)
    recorder.catch_up()
    validation = EvaluationBatches(
        validation_data, spec.trainer.eval_batch_size, tokenizer.pad_token_id, job.snapshot.task
    )
    if recorder.lacks_validation():  # the attempt before left between a step and its validation
        _trainer(recorder, num_legs=1).validate(module, validation, verbose=False)
    remaining = [end for end in legs if end > state.step]
    if remaining and not recorder.stopped_early():
        steps = PlannedSteps(train_data, plan, legs, state.step, tokenizer.pad_token_id, job.snapshot.task)
        _trainer(recorder, num_legs=len(remaining)).fit(module, steps, validation)
    recorder.finish()
    best = best_validation(state.validations, spec.checkpoint)
    return TrainResult(
        total_steps=plan.total_steps,
        stopped_early=state.step < plan.total_steps,
        best=_checkpoint_of(state, best.step),
        last=_checkpoint_of(state, state.step),
        metrics=best.metrics,
        resumed_from_step=resumed_from,
        train_seconds=time.monotonic() - started,
    )


def _check_number_of_checkpoints(spec: RunSpec, total_steps: int, num_validations: int) -> None:
    every = spec.checkpoint.every_n_steps
    expected = num_validations + (total_steps // every if every else 0)
    if expected > _MAX_CHECKPOINTS:
        raise ConfigError(
            f"checkpoint.every_n_steps={every} would make {expected} checkpoints in {total_steps} steps; at most "
            f"{_MAX_CHECKPOINTS} can be signalled. Use checkpoint.every_n_steps={total_steps // 1000} or so"
        )


def _trainer(recorder: RunRecorder, num_legs: int) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=num_legs,  # Lightning takes each leg between two validations for an epoch
        accelerator="auto",
        devices=1,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )


def _checkpoint_of(state: TrainingState, step: int) -> CheckpointRef:
    return next(c for c in reversed(state.checkpoints) if c.step == step)


def _configure_process(spec: RunSpec) -> None:
    """Fix everything about this process that the bits of the result depend on."""
    torch.set_num_threads(spec.trainer.num_threads)
    if torch.get_num_interop_threads() != 1:  # can be set once in a process
        torch.set_num_interop_threads(1)
    disable_progress_bar()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
