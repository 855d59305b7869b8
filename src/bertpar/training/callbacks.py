"""What happens around Lightning's steps: metric rows, progress, checkpoints, early stopping."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from transformers import PreTrainedModel

from bertpar import faults
from bertpar.errors import NotANumberError, PreemptedError
from bertpar.events import MetricRow, Progress
from bertpar.tracking import EXAMPLES_PER_SECOND
from bertpar.training.attempt import Attempt
from bertpar.training.collective import Beginning
from bertpar.training.committer import Committer
from bertpar.training.module import Classifier
from bertpar.training.plan import is_checkpoint_step
from bertpar.training.selection import Validation, should_stop_early
from bertpar.training.state import TrainingState

_PROGRESS_SECONDS = 0.25
_MAX_NOTES = 5
"""Newest notes in a heartbeat, which must stay small."""


class RunRecorder(Checkpoint):
    """Keeps the run's TrainingState, and makes it durable: after every validation and every so many steps.

    Lightning's own ModelCheckpoint is not used: it restores loop counters that make a twice resumed run differ from
    an uninterrupted one, and signals nothing.
    """

    def __init__(
        self,
        attempt: Attempt,
        state: TrainingState,
        optimizer_state: dict[str, Any] | None,
        validation_steps: Sequence[int],
    ) -> None:
        self._attempt = attempt
        self._spec = attempt.spec
        self.state = state
        self._optimizer_state = optimizer_state
        """To be loaded when training starts; until then it is the optimizer's state."""
        self._stop_asked = False
        self._validation_steps = frozenset(validation_steps)
        self._progress = ProgressReporter(attempt, max(validation_steps))
        self._committer = Committer(attempt, self._tell_trouble, lambda: self._stop_asked)
        self._losses: list[torch.Tensor] = []
        """Those of the newest steps, still where they were computed: to read one waits for an accelerator."""
        self._newest_loss: torch.Tensor | None = None
        self._window_started = self._counted_until = time.perf_counter()
        self._window_examples = 0

    def beginning(self, model: PreTrainedModel) -> Beginning:
        """Return what training is about to start with."""
        return Beginning(step=self.state.step, weights=model.state_dict(), optimizer=self._optimizer_state)

    def stopped_early(self) -> bool:
        """Say whether the validations so far end the run before its last step."""
        return should_stop_early(self.state.validations, self._spec.trainer, self._spec.checkpoint)

    def catch_up(self) -> None:
        """Say and deliver what the attempt before made durable, but may not have come to say and deliver."""
        self._attempt.outbox.post(self.state.rows)
        self.state.rows = []
        resume_from = self._attempt.job.resume_from
        known = {checkpoint.key for checkpoint in resume_from}
        gone = [c for c in resume_from if self._attempt.store.find(c.key) is None]  # damaged, and set aside
        for checkpoint in self.state.checkpoints:
            if checkpoint.key not in known or checkpoint is self.state.checkpoints[-1]:
                self._committer.say_saved(checkpoint, gone)

    def finish(self) -> None:
        """Return when all steps are done and durable."""
        self._committer.wait()
        self._report("finishing")

    def close(self) -> None:
        """Wait for a checkpoint that is under way, also where the training has failed."""
        self._committer.close()

    def lacks_validation(self) -> bool:
        """Say whether the state's step is to be followed by a validation that has not been done."""
        validated = bool(self.state.validations) and self.state.validations[-1].step == self.state.step
        return self.state.step in self._validation_steps and not validated

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._leave_in_order_on_sigterm()
        if self._optimizer_state is not None:
            trainer.optimizers[0].load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        self._report("training")
        self._start_window()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        state, step = self.state, pl_module.step
        state.step = step
        self._newest_loss = outputs["loss"].detach()
        self._losses.append(self._newest_loss)
        faults.reach("step.done")
        self._window_examples += self._spec.trainer.devices * sum(len(micro_batch.positions_B) for micro_batch in batch)
        validates = step in self._validation_steps
        if validates or step % self._spec.trainer.log_every_n_steps == 0:
            self._log_window(pl_module)
        self._report("training", throttled=True)
        self._committer.check()
        if self._stop_asked:
            self._leave(trainer, pl_module)
        if not validates and is_checkpoint_step(step, self._spec.checkpoint):
            self._commit(trainer, pl_module)
            self._start_window()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._committer.wait()  # while SIGTERM still leaves in order

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._leave_in_order_on_sigterm()
        self._report("validating")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Classifier)
        if self._stop_asked:
            self._leave(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        metrics = pl_module.validation_metrics()
        self.state.validations.append(Validation(step=self.state.step, metrics=metrics))
        self._add_rows(metrics)
        self._commit(trainer, pl_module)
        trainer.should_stop = self.stopped_early()
        self._report("training")
        self._start_window()

    def _leave_in_order_on_sigterm(self) -> None:
        # set here, after Lightning has set its own, which would wait for the end of an epoch
        def stop(number: int, frame: FrameType | None) -> None:
            self._stop_asked = True

        signal.signal(signal.SIGTERM, stop)

    def _leave(self, trainer: pl.Trainer, module: Classifier) -> NoReturn:
        """Make the state durable at this step boundary and hand the run back: no step is lost."""
        self._committer.wait()
        if not self.state.checkpoints or self.state.checkpoints[-1].step < self.state.step:
            self._commit(trainer, module)
            self._committer.wait()
        left = PreemptedError(f"asked to stop; left in order after step {self.state.step}, no step is lost")
        left.step = self.state.step + 1
        raise left

    def _commit(self, trainer: pl.Trainer, module: Classifier) -> None:
        """Begin to make the state durable."""
        state, now = self.state, time.perf_counter()
        state.work_seconds += now - self._counted_until
        self._counted_until = now
        self._read_losses(module)
        self._committer.begin(state, module.model, self._optimizer_state or trainer.optimizers[0].state_dict())

    def _read_losses(self, module: Classifier) -> None:
        """Let the window have the losses of the newest steps: one wait for an accelerator, not one a step.

        Raises:
            NotANumberError: one of them is NaN or infinite.
        """
        if not self._losses:
            return
        losses: list[float] = torch.stack(self._losses).tolist()
        self._losses = []
        for step, loss in enumerate(losses, self.state.step - len(losses) + 1):
            if not math.isfinite(loss):
                error = NotANumberError(
                    f"train/loss={loss} at step {step} (lr={module.learning_rate(step):.3g}). "
                    "The same step would fail again: lower lr, or set optim.clip"
                )
                error.step = step
                raise error
        self.state.window += losses

    def _log_window(self, module: Classifier) -> None:
        seconds = time.perf_counter() - self._window_started
        self._read_losses(module)
        window = self.state.window
        self._add_rows(
            {
                "train/loss": sum(window) / len(window),
                "lr": module.learning_rate(self.state.step),
                EXAMPLES_PER_SECOND: self._window_examples / seconds,
            }
        )
        self._progress.examples_per_second = self._window_examples / seconds
        self.state.window = []
        self._start_window()

    def _start_window(self) -> None:
        self._window_started = time.perf_counter()
        self._window_examples = 0

    def _add_rows(self, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        self.state.rows.extend(
            MetricRow(key=key, value=value, step=self.state.step, timestamp_ms=now) for key, value in metrics.items()
        )

    def _tell_trouble(self, trouble: str | None) -> None:
        self._progress.waiting = trouble
        self._report(self._progress.phase)

    def _report(self, phase: Any, *, throttled: bool = False) -> None:
        if throttled and not self._progress.is_due():
            return
        if self._newest_loss is not None and math.isfinite(loss := float(self._newest_loss)):
            self._progress.loss = loss
        self._progress.report(phase, self.state)


class ProgressReporter:
    """Emits progress, and knows when a few times a second would be too often."""

    def __init__(self, attempt: Attempt, total_steps: int) -> None:
        self._attempt = attempt
        self._total_steps = total_steps
        self._last = 0.0
        self._started: tuple[float, int] | None = None
        self.phase: Any = "training"
        """The one reported last."""
        self.waiting: str | None = None
        """What is waited for."""
        self.loss: float | None = None
        self.examples_per_second: float | None = None

    def is_due(self) -> bool:
        """Say whether the last report was long enough ago for one that nothing but a step asks for."""
        return time.monotonic() - self._last >= _PROGRESS_SECONDS

    def report(self, phase: Any, state: TrainingState) -> None:
        """Report `phase`."""
        self.phase = phase
        self._last = now = time.monotonic()
        if self._started is None:
            self._started = (now, state.step)
        started, first_step = self._started
        newest = state.checkpoints[-1] if state.checkpoints else None
        self._attempt.emit(
            "progress",
            Progress(
                attempt=self._attempt.job.attempt,
                phase=phase,
                step=state.step,
                total_steps=self._total_steps,
                loss=self.loss,
                examples_per_second=self.examples_per_second,
                seconds_per_step=(now - started) / (state.step - first_step) if state.step > first_step else None,
                checkpoint_step=newest.step if newest else None,
                metrics=state.validations[-1].metrics if state.validations else {},
                waiting=self.waiting,
                notes=tuple(self._attempt.notes[-_MAX_NOTES:]),
            ),
        )
