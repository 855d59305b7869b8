"""The error tree: one class per thing that a user or a workflow can act on, and what is done about each.

A failure crosses process and workflow borders by its class name (`error_type`), so that the raiser and
the handler cannot diverge. What happens next is decided here, where the meaning of the failure is known.
"""

from __future__ import annotations

import traceback
from enum import Enum
from typing import ClassVar

from bertpar.events import Failure


class Action(Enum):
    """What is done about a failure; the value says it in the documentation."""

    FINAL = "ends the run at once: the same try would fail again"
    RETRY = "tried again, up to `temporal.max_attempts` times without progress in between"
    AGAIN = "tried again at once and without limit: not the run's fault"
    WAIT = "waited for without limit, asking again at growing intervals of up to a minute"
    SMALLER = (
        "tried again with half the micro-batch, twice the accumulation, and half of a validation's batch; a second "
        "time at the same step is final"
    )
    REBUILD = "the damaged file is set aside and made again, then the run goes on"


class BertparError(Exception):
    """Base of every error that bertpar raises on purpose. Its message is for the user, whole as it stands."""

    exit_code: ClassVar[int] = 1
    action: ClassVar[Action] = Action.FINAL
    step: int | None = None
    """The optimizer step at which it happened, where that is known."""

    @classmethod
    def error_type(cls) -> str:
        """Return the name under which this error travels through Temporal and event streams."""
        return cls.__name__


class ConfigError(BertparError):
    """The configuration is invalid. One message may hold several lines, one per offending key."""

    exit_code = 2


class DataError(BertparError):
    """The dataset cannot be used as it is: missing file or column, empty split, bad rows."""

    exit_code = 2


class ModelError(BertparError):
    """The pretrained model cannot be used: missing folder, wrong weights digest, no tokenizer."""

    exit_code = 2


class NotFoundError(BertparError):
    """No sweep, run or checkpoint of that name."""

    exit_code = 2


class NotComparableError(BertparError):
    """What was named cannot be compared: other test examples, other tasks, or other objectives."""

    exit_code = 2


class RefusedError(BertparError):
    """The sweep or run is in a state in which it does not take the command."""

    exit_code = 2


class NotANumberError(BertparError):
    """The training loss became NaN or infinite; `resume.nan_lr_factor` allows one more try at a lower rate."""


class OutOfMemoryError(BertparError):
    """The device or the host ran out of memory."""

    action = Action.SMALLER


class CheckpointMemoryError(BertparError):
    """The host has no memory for the copy that a checkpoint is made of; smaller batches would not change that."""

    action = Action.RETRY  # another worker may have more, or the runs beside this one less


class CorruptError(BertparError):
    """A published file differs from its manifest, or was never committed."""


class CheckpointDamagedError(CorruptError):
    """The checkpoint that was to be evaluated is damaged or missing."""

    action = Action.REBUILD


class SnapshotDamagedError(CorruptError):
    """A file of the data's snapshot, or of its tokenizer, is damaged or missing."""

    action = Action.REBUILD


class InexactResumeError(BertparError):
    """This worker would not go on bit for bit: processor, library or thread count differ from the checkpoint's."""

    action = Action.RETRY  # another worker may be of the right kind


class WorkerTooSmallError(BertparError):
    """The run takes more slots, GPUs or CPU threads than this worker has."""

    action = Action.RETRY  # another worker may be larger


class CodeChangedError(BertparError):
    """This worker runs other code or libraries than the sweep was submitted with: nothing is mixed."""


class SupersededError(BertparError):
    """A newer attempt at the same run has begun: this one may write nothing more."""


class StoreError(BertparError):
    """The store cannot be read or written."""

    action = Action.WAIT


class DiskFullError(StoreError):
    """The store has no space left. A training waits with its last good checkpoint, until there is."""


class TrackingError(BertparError):
    """MLflow cannot be reached. Trainings go on: their metric rows wait in their checkpoints."""

    action = Action.WAIT


class TrackingRefusedError(TrackingError):
    """MLflow answers, but will not: the experiment or run was deleted there."""

    action = Action.FINAL


class ConnectionFailedError(BertparError):
    """The Temporal server cannot be reached."""

    action = Action.WAIT


class WorkflowStuckError(BertparError):
    """A workflow is there but cannot answer: its task fails, say because its worker runs other code."""

    action = Action.WAIT


class StackError(BertparError):
    """The local stack cannot be started or stopped."""


class ProcessDiedError(BertparError):
    """A job process ended without a result: killed, out of memory, or a crash in native code."""

    action = Action.RETRY


class WorkerLostError(BertparError):
    """No heartbeat came in time: the worker, its machine or the network is gone."""

    action = Action.AGAIN


class PreemptedError(BertparError):
    """The job was given back in order: its worker shuts down, or the run is to leave its slot."""

    action = Action.AGAIN


def _tree(cls: type[BertparError]) -> dict[str, type[BertparError]]:
    found = {cls.error_type(): cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


ERRORS: dict[str, type[BertparError]] = _tree(BertparError)
"""Every error class by its travelling name."""


def action_on(error_type: str | None) -> Action:
    """Return what is done about a failure; an unknown type (a bug, a library's error) is worth another try."""
    return ERRORS[error_type].action if error_type in ERRORS else Action.RETRY


def failure_of(error: Exception) -> Failure:
    """Return `error` as it travels: under its own class's name, or OutOfMemoryError for any library's way to say so."""
    if isinstance(error, BertparError):
        return Failure(error_type=error.error_type(), message=str(error), step=error.step)
    name = OutOfMemoryError.error_type() if is_out_of_memory(error) else type(error).__name__
    lines = traceback.format_exception(error)
    return Failure(error_type=name, message=f"{type(error).__name__}: {error}", traceback="".join(lines))


def is_out_of_memory(error: Exception) -> bool:
    """Say whether this is how Python, torch or a device says that memory has run out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
