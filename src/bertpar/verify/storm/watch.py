"""What a sweep shows while it is under fire: how long a blow stops it, and how much it loses. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from bertpar.observe import RunView, SweepView
from bertpar.states import TERMINAL, Attempt

Reach = Literal["one run", "every run"]

_SURVIVAL_SECONDS = 4.0
"""A step of the same attempt so long after a blow shows that the blow did not end it: heartbeats lag behind."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """One attempt that a blow ended."""

    blow: str
    """The last one that hit all runs since, or else the first one that can have been the run's own."""
    seconds: float
    """From that blow to the run's next training step."""


@dataclass(frozen=True, kw_only=True)
class _Blow:
    name: str
    at: float
    attempt: int


@dataclass(kw_only=True)
class Watch:
    """Recovery is the time from the last blow that ended a run's attempt to the run's next training step."""

    recoveries: list[Recovery] = field(default_factory=list)
    _blows: dict[int, _Blow] = field(default_factory=dict)
    _runs: dict[int, RunView] = field(default_factory=dict)
    _reached: dict[tuple[int, int], int] = field(default_factory=dict)
    """The highest step that was seen, by run and attempt."""

    def hit(self, name: str, now: float, *, reach: Reach) -> None:
        """Note a blow to what trains. One to a single run of unknown name starts no recovery anew."""
        for index, run in self._runs.items():
            if index in self._blows:
                if reach == "every run":
                    self._blows[index] = replace(self._blows[index], name=name, at=now)
            elif run.status == "training" and run.progress is not None:
                self._blows[index] = _Blow(name=name, at=now, attempt=run.state.attempt)

    def is_waiting(self) -> bool:
        """Say whether a run has not yet made a step since its last blow, or nothing trains at all."""
        steps = (run.progress.step for run in self._runs.values() if run.status == "training" and run.progress)
        return bool(self._blows) or not any(steps)

    def see(self, view: SweepView, now: float) -> None:
        """Take in how the sweep looks now."""
        for run in view.runs:
            index = run.state.run.index
            before, self._runs[index] = self._runs.get(index), run
            if run.progress is not None:
                key = (index, run.progress.attempt)
                self._reached[key] = max(self._reached.get(key, 0), run.progress.step)
            blow = self._blows.get(index)
            if blow is None:
                continue
            if run.status in ("evaluating", "reporting", *TERMINAL) or self._steps_again(run, blow):
                if run.state.attempt > blow.attempt:
                    self.recoveries.append(Recovery(blow=blow.name, seconds=now - blow.at))
                del self._blows[index]
            elif self._went_on(run, before, blow, now):
                del self._blows[index]

    def _steps_again(self, run: RunView, blow: _Blow) -> bool:
        progress = run.progress
        if progress is None or run.state.attempt <= blow.attempt or progress.attempt != run.state.attempt:
            return False
        return progress.step > run.attempts[-1].resumed_from_step

    def _went_on(self, run: RunView, before: RunView | None, blow: _Blow, now: float) -> bool:
        if before is None or before.progress is None or run.progress is None or run.state.attempt != blow.attempt:
            return False
        return run.progress.step > before.progress.step and now - blow.at > _SURVIVAL_SECONDS

    def lost_steps(self, index: int, attempts: Sequence[Attempt]) -> list[int]:
        """Return, for each attempt of a run that another one followed, how many of its steps were trained again."""
        return [
            max(0, self._reached.get((index, attempt.number), 0) - after.resumed_from_step)
            for attempt, after in pairwise(attempts)
        ]
