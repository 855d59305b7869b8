"""What happens around Lightning's steps: metric rows, progress, checkpoints, early stopping."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from bertpar import faults
from bertpar.checkpoints import checkpoint_key
from bertpar.errors import PreemptedError, StoreError
from bertpar.events import CheckpointRef, CheckpointSaved, MetricRow, Progress, TrainJob
from bertpar.holds import is_held
from bertpar.jobs import Emit
from bertpar.spec import RunSpec
from bertpar.store import Store
from bertpar.tracking import EXAMPLES_PER_SECOND
from bertpar.training.fence import Fence
from bertpar.training.module import Classifier
from bertpar.training.outbox import Outbox
from bertpar.training.plan import is_checkpoint_step
from bertpar.training.selection import Validation, checkpoints_to_prune, should_stop_early
from bertpar.training.state import TrainingState, save_checkpoint

T = TypeVar("T")

_PROGRESS_SECONDS = 0.25
_MAX_NOTES = 5
"""Newest notes in a heartbeat, which must stay small."""
_STORAGE_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)


class RunRecorder(Checkpoint):
    """Keeps the run's TrainingState, and makes it durable: after every validation and every so many steps.

    Lightning's own ModelCheckpoint is not used: it restores loop counters that make a twice resumed run differ from
    an uninterrupted one, and signals nothing.
    """

    def __init__(
        self,
        job: TrainJob,
        spec: RunSpec,
        store: Store,
        fence: Fence,
        state: TrainingState,
        optimizer_state: dict[str, Any] | None,
        validation_steps: Sequence[int],
        outbox: Outbox,
        meta: Mapping[str, Any],
        notes: Sequence[str],
        emit: Emit,
    ) -> None:
        self._job = job
        self._spec = spec
        self._store = store
        self._fence = fence
        self._meta = meta
        """What every checkpoint says of who made it and how."""
        self.state = state
        self._optimizer_state = optimizer_state
        """To be loaded when training starts; until then it is the optimizer's state."""
        self._stop_asked = False
        self._validation_steps = frozenset(validation_steps)
        self._outbox = outbox
        self._progress = ProgressReporter(job.attempt, max(validation_steps), notes, emit)
        self._emit = emit
        self._window_started = self._counted_until = time.perf_counter()
        self._window_examples = 0

    def stopped_early(self) -> bool:
        """Say whether the validations so far end the run before its last step."""
        return should_stop_early(self.state.validations, self._spec.trainer, self._spec.checkpoint)

    def catch_up(self) -> None:
        """Say and deliver what the attempt before made durable, but may not have come to say and deliver."""
        self._outbox.post(self.state.rows)
        self.state.rows = []
        known = {checkpoint.key for checkpoint in self._job.resume_from}
        gone = [c for c in self._job.resume_from if self._store.find(c.key) is None]  # damaged, and set aside
        for checkpoint in self.state.checkpoints:
            if checkpoint.key not in known or checkpoint is self.state.checkpoints[-1]:
                self._say_saved(checkpoint, gone)

    def finish(self) -> None:
        """Say that all steps are done."""
        self._report("finishing")

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
        loss = float(outputs["loss"])
        state.step = step
        state.window.append(loss)
        faults.reach("step.done")
        self._window_examples += sum(len(micro_batch.positions_B) for micro_batch in batch)
        validates = step in self._validation_steps
        if validates or step % self._spec.trainer.log_every_n_steps == 0:
            self._log_window(pl_module.learning_rate(step))
        self._report("training", loss=loss, throttled=True)
        if self._stop_asked:
            self._leave(trainer, pl_module)
        if not validates and is_checkpoint_step(step, self._spec.checkpoint):
            self._commit(trainer, pl_module)
            self._start_window()

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
        if not self.state.checkpoints or self.state.checkpoints[-1].step < self.state.step:
            self._commit(trainer, module)
        left = PreemptedError(f"asked to stop; left in order after step {self.state.step}, no step is lost")
        left.step = self.state.step + 1
        raise left

    def _commit(self, trainer: pl.Trainer, module: Classifier) -> None:
        """Make the state durable, say so, and only then delete what it replaces and deliver its metric rows."""
        state, new_rows = self.state, self.state.rows
        now = time.perf_counter()
        state.work_seconds += now - self._counted_until
        self._counted_until = now
        state.rows = [*self._outbox.undelivered(), *new_rows]
        optimizer = self._optimizer_state or trainer.optimizers[0].state_dict()
        key = checkpoint_key(self._job.run_id, self._job.attempt, state.step)

        def save() -> CheckpointRef:
            self._fence.check()
            return save_checkpoint(self._store, key, state, module.model, optimizer, self._meta)

        saved = self._wait_for_storage(save)
        state.rows = []
        self._wait_for_storage(self._fence.check)
        pruned = self._wait_for_storage(lambda: self._to_prune([*state.checkpoints, saved]))
        self._say_saved(saved, pruned)
        state.checkpoints = [c for c in [*state.checkpoints, saved] if c not in pruned]
        for checkpoint in (c for c in pruned if c.run_id == self._job.run_id):  # an equal run's are its own to keep
            needed = partial(is_held, self._store, checkpoint.key)  # somebody may have asked for it this very moment
            self._wait_for_storage(partial(self._store.remove, checkpoint.key, needed))
        self._outbox.post(new_rows)

    def _to_prune(self, checkpoints: Sequence[CheckpointRef]) -> list[CheckpointRef]:
        """Return those that neither the run nor anybody else needs."""
        pruned = checkpoints_to_prune(checkpoints, self._spec.checkpoint)
        return [checkpoint for checkpoint in pruned if not is_held(self._store, checkpoint.key)]

    def _wait_for_storage(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, once the store lets it: nothing is lost meanwhile, and everybody sees why.

        Raises:
            PreemptedError: asked to stop meanwhile.
        """
        num_failures = 0
        while True:
            try:
                done = work()
            except StoreError as error:
                if self._stop_asked:
                    raise PreemptedError(
                        f"asked to stop while step {self.state.step} waits for the store: {error}"
                    ) from error
                self._report("training", waiting=f"storage: {error}")
                time.sleep(_STORAGE_RETRY_SECONDS[min(num_failures, len(_STORAGE_RETRY_SECONDS) - 1)])
                num_failures += 1
            else:
                if num_failures:
                    self._report("training")
                return done

    def _say_saved(self, saved: CheckpointRef, pruned: Sequence[CheckpointRef] = ()) -> None:
        keys = tuple(checkpoint.key for checkpoint in pruned)
        self._emit("checkpoint", CheckpointSaved(checkpoint=saved, attempt=self._job.attempt, pruned=keys))

    def _log_window(self, learning_rate: float) -> None:
        seconds = time.perf_counter() - self._window_started
        window = self.state.window
        self._add_rows(
            {
                "train/loss": sum(window) / len(window),
                "lr": learning_rate,
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

    def _report(
        self, phase: Any, *, loss: float | None = None, throttled: bool = False, waiting: str | None = None
    ) -> None:
        self._progress.report(phase, self.state, loss, throttled=throttled, waiting=waiting)


class ProgressReporter:
    """Emits progress a few times a second at most."""

    def __init__(self, attempt: int, total_steps: int, notes: Sequence[str], emit: Emit) -> None:
        self._attempt = attempt
        self._notes = notes
        self._total_steps = total_steps
        self._emit = emit
        self._last = 0.0
        self._loss: float | None = None
        self._started: tuple[float, int] | None = None
        self.examples_per_second: float | None = None

    def report(
        self, phase: Any, state: TrainingState, loss: float | None, *, throttled: bool, waiting: str | None
    ) -> None:
        """Report `phase`; a throttled report that follows too soon is dropped."""
        self._loss = loss if loss is not None else self._loss
        now = time.monotonic()
        if throttled and now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        if self._started is None:
            self._started = (now, state.step)
        started, first_step = self._started
        newest = state.checkpoints[-1] if state.checkpoints else None
        self._emit(
            "progress",
            Progress(
                attempt=self._attempt,
                phase=phase,
                step=state.step,
                total_steps=self._total_steps,
                loss=self._loss,
                examples_per_second=self.examples_per_second,
                seconds_per_step=(now - started) / (state.step - first_step) if state.step > first_step else None,
                checkpoint_step=newest.step if newest else None,
                metrics=state.validations[-1].metrics if state.validations else {},
                waiting=waiting,
                notes=tuple(self._notes[-_MAX_NOTES:]),
            ),
        )
