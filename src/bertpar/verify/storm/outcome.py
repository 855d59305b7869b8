"""What happened to one sweep under fire."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertpar.verify.storm.watch import Recovery
from bertpar.verify.sweeps import Place

_PREDICTION_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What `bertpar predict` said."""

    printed: str
    error: str | None = None
    """Why it failed; None if it did not."""


@dataclass(kw_only=True)
class UnderFire:
    """What happened to one sweep."""

    number: int
    sweep_id: str = ""
    status: str = "not submitted"
    place: Place
    log: list[tuple[float, str]] = field(default_factory=list)
    """Every blow that hit: seconds since the start, and its name."""
    attempts: int = 0
    lost_steps: list[int] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    seconds: float = 0.0
    prediction: Prediction | None = None
    """Made in the end, if the sweep completed."""

    @property
    def failures(self) -> list[str]:
        """What came to no result that could be compared."""
        if self.status != "completed":
            return [f"it is {self.status}, not completed"]
        assert self.prediction is not None
        return [] if self.prediction.error is None else [f"bertpar predict failed: {self.prediction.error}"]

    @property
    def num_blows(self) -> int:
        return len(self.log)

    @property
    def blows(self) -> dict[str, int]:
        """How often each kind of blow hit, by name."""
        return dict(sorted(Counter(name for _, name in self.log).items()))


def predict(command: Sequence[str]) -> Prediction:
    """Return what the command said."""
    while True:  # it publishes its texts, and may be who dies: then the user types it again
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PREDICTION_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Prediction(printed="", error=f"no answer within {_PREDICTION_SECONDS:.0f} s")
        if done.returncode == 0:
            return Prediction(printed=done.stdout)
        if done.returncode != -signal.SIGKILL:
            return Prediction(printed=done.stdout, error=f"exit code {done.returncode}: {done.stderr.strip()}")
