"""Whether an attempt goes on with what a checkpoint began: the same run, the same arithmetic."""

from __future__ import annotations

from typing import Any

from bertpar.errors import ConfigError, InexactResumeError
from bertpar.events import CheckpointRef, TrainJob
from bertpar.identity import differing_values
from bertpar.spec import RunSpec
from bertpar.store import Store
from bertpar.training.fingerprint import machine_fingerprint, run_fingerprint
from bertpar.training.state import TrainingState


class Continuity:
    """Compares an attempt with the checkpoint that it goes on from."""

    def __init__(self, job: TrainJob, spec: RunSpec) -> None:
        self._job = job
        self._run = run_fingerprint(spec, job.snapshot)
        self._machine = machine_fingerprint()

    def meta(self) -> dict[str, Any]:
        """Return what a checkpoint of this attempt says of its making."""
        job = self._job
        changes = {"batch_divisor": job.batch_divisor, "lr_scale": job.lr_scale}
        return {"attempt": job.attempt, "run": self._run, "machine": self._machine, "changes": changes}

    def is_of_this_machine(self, store: Store, checkpoint: CheckpointRef) -> bool:
        """Say whether going on from a checkpoint would give the bits that one attempt on this machine gives."""
        bundle = store.find(checkpoint.key)
        return bundle is not None and bundle.meta["machine"] == self._machine

    def check(self, store: Store, state: TrainingState) -> None:
        """Return if the attempt may go on from `state`, after adding to it what makes the run inexact from here on.

        Raises:
            ConfigError: the checkpoint is another run's.
            InexactResumeError: it was made on another kind of machine, and that is not allowed.
        """
        changes = {"batch_divisor": 1, "lr_scale": 1.0}
        if state.step > 0:
            checkpoint = state.checkpoints[-1]
            bundle = store.find(checkpoint.key)
            assert bundle is not None, "it was just read"
            self._check_same_run(bundle.meta["run"], checkpoint)
            self._check_same_machine(bundle.meta["machine"], checkpoint, state)
            changes = bundle.meta["changes"]
        if changes["batch_divisor"] != self._job.batch_divisor:
            state.inexact.append(
                f"from step {state.step + 1} on each micro-batch, and each batch of a validation, is cut into "
                f"{self._job.batch_divisor}: out of memory"
            )
        if changes["lr_scale"] != self._job.lr_scale:
            state.inexact.append(
                f"from step {state.step + 1} on the learning rate is {self._job.lr_scale:g} times as large: NaN loss"
            )

    def _check_same_run(self, theirs: dict[str, str], checkpoint: CheckpointRef) -> None:
        if found := differing_values(self._run, theirs):
            raise ConfigError(
                f"{checkpoint.key} is a checkpoint of another run: {'; '.join(found)}. Start a run of its own"
            )

    def _check_same_machine(self, theirs: dict[str, str], checkpoint: CheckpointRef, state: TrainingState) -> None:
        found = differing_values(self._machine, theirs)
        if not found:
            return
        what = f"step {checkpoint.step} was reached on another kind of machine: {'; '.join(found)}"
        if not self._job.allow_inexact:
            raise InexactResumeError(
                f"{what}. Going on here would not give the same bits: start a worker like the one that "
                "was lost, or allow it with resume.allow_inexact=true, and MLflow will say so"
            )
        state.inexact.append(what)
