"""When each attempt ran, and what ended it, as bars on a common axis of time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bertpar.attempts import TrainingAttempt
from bertpar.states import TERMINAL
from bertpar.tries import EvaluationTries
from bertpar.why import RunRecord

_STEPS = tuple(
    timedelta(seconds=s) for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
)
_MOST_TICKS = 6


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of the axis, in percent of its length."""

    kind: str
    """`waiting`, `evaluation`, or the outcome of an attempt at training."""
    start: float
    width: float
    told: str
    resumed: bool = False
    """The attempt went on from a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One run."""

    index: int
    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One attempt that did not end well."""

    run: str
    what: str
    at: str
    steps: str
    lost: str
    cause: str


@dataclass(frozen=True, kw_only=True)
class Timeline:
    began: datetime
    ended: datetime
    ticks: tuple[tuple[float, str], ...]
    """Places in percent, and times of day."""
    lanes: tuple[Lane, ...]
    incidents: tuple[Incident, ...]


def timeline_of(records: Sequence[RunRecord], names: dict[str, str], now: datetime) -> Timeline | None:
    """Return the timeline of the runs, whose names are given by their ids; what still runs ends `now`.

    None where no attempt was ever queued.
    """
    moments = [moment for record in records for moment in _moments(record)]
    if not moments:
        return None
    running = any(record.status not in TERMINAL for record in records)
    axis = _Axis(min(moments), max([*moments, now] if running else moments))
    lanes = [
        Lane(index=_index(record), name=names.get(record.run_id, record.run_id), bars=tuple(_bars(record, axis)))
        for record in records
    ]
    return Timeline(
        began=axis.began,
        ended=axis.ended,
        ticks=tuple(axis.ticks()),
        lanes=tuple(lanes),
        incidents=tuple(incident for record in records for incident in _incidents(record, names)),
    )


class _Axis:
    def __init__(self, began: datetime, ended: datetime) -> None:
        self.began = began
        self.ended = max(ended, began + timedelta(seconds=1))

    def at(self, moment: datetime) -> float:
        return 100 * ((moment - self.began) / (self.ended - self.began))

    def bar(self, kind: str, start: datetime, end: datetime, told: str, resumed: bool = False) -> Bar:
        return Bar(
            kind=kind,
            start=round(self.at(start), 3),
            width=round(self.at(end) - self.at(start), 3),
            told=told,
            resumed=resumed,
        )

    def ticks(self) -> Iterable[tuple[float, str]]:
        length = self.ended - self.began
        step = next((s for s in _STEPS if length / s <= _MOST_TICKS), length / _MOST_TICKS)
        form = "%H:%M:%S" if step < timedelta(minutes=1) else ("%H:%M" if length < timedelta(days=1) else "%m-%d %H:%M")
        midnight = self.began.replace(hour=0, minute=0, second=0, microsecond=0)
        moment = midnight + step * -((midnight - self.began) // step)  # the first round time
        while moment <= self.ended:
            yield round(self.at(moment), 3), f"{moment:{form}}"
            moment += step


def _moments(record: RunRecord) -> Iterable[datetime]:
    for attempt in record.attempts:
        yield from (m for m in (attempt.queued_at, attempt.started_at, attempt.ended_at) if m is not None)
    if record.evaluation is not None:
        yield from (m for m in (record.evaluation.started_at, record.evaluation.ended_at) if m is not None)


def _bars(record: RunRecord, axis: _Axis) -> Iterable[Bar]:
    for attempt in record.attempts:
        end = attempt.ended_at or axis.ended
        started = attempt.started_at
        waited = f"attempt {attempt.number} waited for a slot"
        yield axis.bar("waiting", attempt.queued_at, started or end, waited)
        if started is not None:
            yield axis.bar(attempt.outcome, started, end, _told(attempt), attempt.resumed_from_step > 0)
    if (evaluation := record.evaluation) is not None and evaluation.started_at is not None:
        end = evaluation.ended_at or axis.ended
        yield axis.bar("evaluation", evaluation.started_at, end, f"evaluation: {evaluation.outcome}")


def _told(attempt: TrainingAttempt) -> str:
    start = f"attempt {attempt.number}, steps {attempt.resumed_from_step} to {attempt.reached_step}: {attempt.outcome}"
    return f"{start}, {attempt.cause}" if attempt.cause else start


def _incidents(record: RunRecord, names: dict[str, str]) -> Iterable[Incident]:
    run = f"[{_index(record)}] {names.get(record.run_id, record.run_id)}"
    for attempt in record.attempts:
        if attempt.cause is not None or attempt.outcome in ("failed", "cancelled"):
            bound = "" if attempt.is_exact else "≥ "
            yield Incident(
                run=run,
                what=f"attempt {attempt.number}",
                at=_moment(attempt.ended_at),
                steps=f"{attempt.resumed_from_step} to {bound}{attempt.reached_step}",
                lost="" if attempt.lost_steps is None else f"{bound}{attempt.lost_steps}",
                cause=str(attempt.cause or attempt.outcome),
            )
    yield from _evaluation_incident(run, record.evaluation)
    if record.failure is not None and not any(attempt.cause for attempt in record.attempts):
        yield Incident(run=run, what="the run", at="", steps="", lost="", cause=str(record.failure))


def _evaluation_incident(run: str, evaluation: EvaluationTries | None) -> Iterable[Incident]:
    if evaluation is not None and evaluation.last_failure is not None:
        yield Incident(
            run=run,
            what=f"evaluation, {evaluation.num_tries} tries",
            at=_moment(evaluation.started_at),
            steps="",
            lost="",
            cause=str(evaluation.last_failure),
        )


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%H:%M:%S}"


def _index(record: RunRecord) -> int:
    return int(record.run_id.rpartition("/")[2])
