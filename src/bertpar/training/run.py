"""One attempt at a run's training, from a TrainJob to a TrainResult."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from bertpar.checkpoints import checkpoints_folder, find_checkpoints
from bertpar.codec import fetch_spec
from bertpar.cpu_modules import use_cpu_modules
from bertpar.data.snapshot import fetch_tokenizer, open_split
from bertpar.errors import ConfigError, ModelError, PreemptedError
from bertpar.events import CheckpointRef, Progress, SnapshotRef, TrainJob, TrainResult
from bertpar.holds import bring_back_held
from bertpar.jobs import Emit
from bertpar.layout import layout_for
from bertpar.model_folder import model_digest
from bertpar.models import load_classifier, load_tokenizer, resolve_model
from bertpar.ranks import current_team
from bertpar.spec import RunSpec
from bertpar.store import Store
from bertpar.torch_setup import set_up_torch
from bertpar.training.attempt import Attempt
from bertpar.training.batches import EvaluationBatches, PlannedSteps
from bertpar.training.callbacks import RunRecorder
from bertpar.training.collective import join
from bertpar.training.explaining import explaining_failures
from bertpar.training.fence import hold_fence
from bertpar.training.module import Classifier
from bertpar.training.plan import plan_batches, validation_steps
from bertpar.training.selection import best_validation
from bertpar.training.state import TrainingState, is_intact, load_start, restore_newest

_MAX_CHECKPOINTS = 9000
"""Temporal takes 10,000 signals for one workflow execution."""


def train(job: TrainJob, store: Store, emit: Emit) -> TrainResult:
    """Train from the newest usable checkpoint, of those the workflow knows and those it was never told of, to the end.

    Raises:
        NotANumberError, OutOfMemoryError: with the step at which it happened.
        CheckpointMemoryError: the host has none for a checkpoint's copy.
        ConfigError, DataError, ModelError, SnapshotDamagedError: final; the same attempt would fail again.
        InexactResumeError: this machine would not go on bit for bit.
        SupersededError: a newer attempt has begun.
        StoreError: the store is away.
        PreemptedError: SIGTERM asked to stop; everything up to the present step is durable.
    """
    started = time.monotonic()
    emit("progress", Progress(attempt=job.attempt, phase="starting"))
    spec = fetch_spec(store, job.spec_key)
    configure_process(spec)
    with (
        hold_fence(store, job.run_id, job.attempt) as fence,
        closing(Attempt(job, spec, store, fence, emit)) as attempt,
    ):
        training = _Training(attempt)
        candidates = training.candidates()
        resumed_from, resumed_work_seconds = None, 0.0
        while True:
            state = training.go_on_from(candidates)
            if resumed_from is None:
                resumed_from, resumed_work_seconds = training.started_at, training.work_seconds_before
            best_validated = best_validation(state.validations, spec.checkpoint)
            best, last = (_checkpoint_of(state, step) for step in (best_validated.step, state.step))
            shown = {c.key: c for c in (best, last)}.values()
            damaged = [c.step for c in shown if not is_intact(store, c, attempt.note)]
            if not damaged:
                break
            if spec.trainer.devices > 1:  # the other ranks have done all their steps
                raise PreemptedError(f"the checkpoint of step {min(damaged)} was damaged meanwhile and is made again")
            # the same steps make the same checkpoints again
            candidates = [c for c in training.candidates() if c.step < min(damaged)]
    return TrainResult(
        total_steps=training.plan.total_steps,
        stopped_early=state.step < training.plan.total_steps,
        best=best,
        last=last,
        metrics=best_validated.metrics,
        resumed_from_step=resumed_from,
        train_seconds=time.monotonic() - started,
        inexact=tuple(state.inexact),
        work_seconds=state.work_seconds,
        resumed_work_seconds=resumed_work_seconds,
        continues=state.continues,
    )


class _Training:
    """What all of an attempt's goes at the run share: its data, its plan, and the other ranks."""

    def __init__(self, attempt: Attempt) -> None:
        job, spec, store = attempt.job, attempt.spec, attempt.store
        self._attempt = attempt
        self._train_data = open_split(store, job.snapshot, "train")
        self._validation_data = open_split(store, job.snapshot, "validation")
        self.plan = plan_batches(len(self._train_data), spec.seed, spec.trainer, job.batch_divisor)
        self._legs = validation_steps(self.plan, spec.trainer)
        _check_number_of_checkpoints(spec, self.plan.total_steps, len(self._legs))
        bring_back_held(store, checkpoints_folder(job.run_id))
        store.remove_leftovers(checkpoints_folder(job.run_id))
        self._tokenizer = load_tokenizer(fetch_tokenizer(store, job.snapshot))
        self._ranks = join(current_team())
        assert self._ranks.share.num_ranks == spec.trainer.devices, "one process for each device"
        self.started_at = 0
        """Steps done when it last began."""
        self.work_seconds_before = 0.0
        """Wall time of these steps."""

    def candidates(self) -> list[CheckpointRef]:
        """Return the run's checkpoints, and those of equal runs that this kind of machine made, newest first."""
        job, store, continuity = self._attempt.job, self._attempt.store, self._attempt.continuity
        found = find_checkpoints(store, job.run_id, job.resume_from)
        return [c for c in found if c.run_id == job.run_id or continuity.is_of_this_machine(store, c)]

    def go_on_from(self, candidates: Sequence[CheckpointRef]) -> TrainingState:
        """Train to the end from the first usable of the candidates, or from step 0, and return the final state."""
        attempt = self._attempt
        job, spec, store = attempt.job, attempt.spec, attempt.store
        _check_model(resolve_model(spec.model), job)
        model = load_model(spec, job.snapshot)
        if spec.start is not None:
            load_start(store, spec.start, model)
        state, optimizer_state = restore_newest(store, candidates, model, spec.checkpoint, attempt.note)
        attempt.continuity.check(store, state)
        if state.step > 0 and state.checkpoints[-1].run_id != job.run_id:
            state.continues = state.checkpoints[-1]
        module = Classifier(model, spec, self.plan.total_steps, job.lr_scale, self._ranks)
        self.started_at = module.step = state.step
        self.work_seconds_before = state.work_seconds
        with closing(RunRecorder(attempt, state, optimizer_state, self._legs)) as recorder:
            recorder.catch_up()
            with explaining_failures(module, self.plan, self._train_data):
                self._fit(module, recorder)
            recorder.finish()
        return state

    def _fit(self, module: Classifier, recorder: RunRecorder) -> None:
        state, spec = recorder.state, self._attempt.spec
        trainer = spec.trainer
        layout = layout_for(module.model, trainer.padding, self._tokenizer, spec.data)
        validation = EvaluationBatches(self._validation_data, self.plan.cut(trainer.eval_batch_size), layout)
        if recorder.lacks_validation():  # the attempt before left between a step and its validation
            make_trainer([recorder], num_legs=1).validate(module, validation, verbose=False)
        remaining = [end for end in self._legs if end > state.step]
        if remaining and not recorder.stopped_early():
            self._ranks.begin(recorder.beginning(module.model))
            steps = PlannedSteps(self._train_data, self.plan, self._legs, state.step, layout, self._ranks.share)
            make_trainer([recorder], num_legs=len(remaining)).fit(module, steps, validation)


def _check_model(folder: Path, job: TrainJob) -> None:
    """Refuse weights that were changed in place after the run was submitted."""
    if job.snapshot.model_digest and (found := model_digest(folder)) != job.snapshot.model_digest:
        raise ModelError(
            f"the model in {folder} is another than the one that the sweep began with (digest {found[:12]} instead of "
            f"{job.snapshot.model_digest[:12]}). Put that one back, or start a sweep of its own with this one"
        )


def _check_number_of_checkpoints(spec: RunSpec, total_steps: int, num_validations: int) -> None:
    every = spec.checkpoint.every_n_steps
    expected = num_validations + (total_steps // every if every else 0)
    if expected > _MAX_CHECKPOINTS:
        raise ConfigError(
            f"checkpoint.every_n_steps={every} would make {expected} checkpoints in {total_steps} steps; at most "
            f"{_MAX_CHECKPOINTS} can be signalled. Use checkpoint.every_n_steps={total_steps // 1000} or so"
        )


def load_model(spec: RunSpec, snapshot: SnapshotRef) -> PreTrainedModel:
    """Return the model with which the run begins, if not with a checkpoint's weights; ready to train."""
    model = load_classifier(
        spec.model,
        resolve_model(spec.model),
        num_labels=max(1, len(snapshot.label_names)),
        label_names=snapshot.label_names,
        task=snapshot.task,
        seed=spec.seed,
    )
    if spec.trainer.compile:
        model.compile(dynamic=True)
    else:
        use_cpu_modules(model)
    model.train()  # transformers loads for inference, and Lightning leaves that as it is
    return model


def make_trainer(callbacks: list[pl.Callback], num_legs: int) -> pl.Trainer:
    """Return Lightning's trainer for this process's device, where Lightning hears nothing of other ranks."""
    return pl.Trainer(
        max_epochs=num_legs,  # Lightning takes each leg between two validations for an epoch
        accelerator="auto",
        devices=[current_team().rank] if torch.cuda.is_available() else 1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )


def _checkpoint_of(state: TrainingState, step: int) -> CheckpointRef:
    return next(c for c in reversed(state.checkpoints) if c.step == step)


def configure_process(spec: RunSpec) -> None:
    """Fix everything about this process that the bits of the result depend on."""
    set_up_torch(spec.trainer.num_threads, num_processes=spec.trainer.devices)
    disable_progress_bar()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
