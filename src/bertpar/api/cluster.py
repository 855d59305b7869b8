"""How Python's users reach Temporal: the local stack, or the cluster that was named."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client

from bertpar.api import background
from bertpar.client import ask_once, connect
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.spec import TemporalSpec

T = TypeVar("T")

_SECONDS_UNTIL_SAID_AGAIN = 600.0
_said_at: dict[str, float] = {}


def as_folder(config_dir: str | Path | None) -> Path | None:
    """Return the folder of a user's own configuration as a path."""
    return None if config_dir is None else Path(config_dir).expanduser()


def say(message: str) -> None:
    """Tell the user what takes a while or is worth knowing; the same again only after a good while."""
    now = time.monotonic()
    if now - _said_at.get(message, -_SECONDS_UNTIL_SAID_AGAIN) >= _SECONDS_UNTIL_SAID_AGAIN:
        _said_at[message] = now
        print(message, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cluster:
    """Where sweeps run."""

    temporal: TemporalSpec
    home: Home

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return what `work` returns: now, or not at all, as a command does.

        Raises:
            ConnectionFailedError: Temporal, or the worker that would answer, is not there.
        """
        return background.run(ask_once(self.temporal, self.home, work, on_wait=say))

    async def patient_client(self, say: Callable[[str], None] = say) -> PatientClient:
        """Return a client that waits through outages, once there was a connection."""
        return PatientClient(await connect(self.temporal, self.home, on_wait=say), self.temporal, self.home, say=say)
