"""The error tree: one class per thing that a user or a workflow can act on.

A failure crosses process and workflow borders by its class name (`error_type`), so that the raiser and
the handler cannot diverge. `retryable` is decided here, where the meaning of the failure is known.
"""

from __future__ import annotations

from typing import ClassVar


class BertparError(Exception):
    """Base of every error that bertpar raises on purpose. Its message is for the user, whole as it stands."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

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


class NotANumberError(BertparError):
    """The training loss became NaN or infinite. Deterministic: the same step would fail again."""


class OutOfMemoryError(BertparError):
    """The device or the host ran out of memory."""


class CorruptError(BertparError):
    """A published file differs from its manifest, or was never committed."""


class StoreError(BertparError):
    """The store cannot be read or written."""

    retryable = True


class TrackingError(BertparError):
    """MLflow cannot be reached or refuses."""

    retryable = True


class ConnectionFailedError(BertparError):
    """The Temporal server cannot be reached."""

    retryable = True


class StackError(BertparError):
    """The local stack cannot be started or stopped."""


class ProcessDiedError(BertparError):
    """A job process ended without a result: killed, out of memory, or a crash in native code."""

    retryable = True


class WorkerLostError(BertparError):
    """No heartbeat came in time: the worker, its machine or the network is gone."""

    retryable = True


class PreemptedError(BertparError):
    """The worker is shutting down and gave the job back."""

    retryable = True


def _tree(cls: type[BertparError]) -> dict[str, type[BertparError]]:
    found = {cls.error_type(): cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


ERRORS: dict[str, type[BertparError]] = _tree(BertparError)
"""Every error class by its travelling name."""


def is_retryable(error_type: str | None) -> bool:
    """Say whether trying again can help; an unknown type (a bug, a library's error) is worth another try."""
    return ERRORS[error_type].retryable if error_type in ERRORS else True
