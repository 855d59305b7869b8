"""Which kills hit a sweep, and when: a function of the seed alone. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bertpar import store

Target = Literal[
    "job", "eval_job", "template", "training_worker", "eval_worker", "client", "temporal", "supervisor", "all",
    "mlflow_parent", "mlflow_child", "mlflow_group",
]  # fmt: skip
How = Literal["kill", "stop", "term", "order"]


def _publishing(*kinds: str) -> tuple[str, ...]:
    return tuple(point for point in store.POINTS if point.partition(".")[0] in kinds)


SUBMISSION_POINTS = (*_publishing("spec", "snapshot", "tokenizer"), "mlflow.run_created")
TRAINING_POINTS = (*_publishing("checkpoint"), "checkpoint.signalled", "metrics.logged", "step.done")
EVALUATION_POINTS = _publishing("evaluation")
PREDICTION_POINTS = _publishing("prediction")
"""Named points of the code (bertpar.faults), by the phase of a sweep that reaches them."""

_STOP_SECONDS = {"training_worker": 4.5, "job": 24.0}
"""Longer than until the attempt is given up: the heartbeat timeout, and for a job the silence before that."""

_WEIGHTS: dict[tuple[How, Target | None], float] = {
    ("order", None): 14,
    ("kill", "job"): 8,
    ("kill", "template"): 1.5,
    ("kill", "training_worker"): 2,
    ("kill", "eval_worker"): 1.5,
    ("kill", "eval_job"): 1,
    ("kill", "client"): 1,
    ("kill", "temporal"): 1.5,
    ("kill", "supervisor"): 1,
    ("kill", "all"): 1,
    ("stop", "training_worker"): 1,
    ("stop", "job"): 0.5,
    ("term", "training_worker"): 1,
}
"""Light blows, from which a run recovers in a moment, make up most: heavy ones have seconds of imports behind them."""

_MLFLOW_WEIGHTS: dict[tuple[How, Target | None], float] = {
    ("kill", "mlflow_parent"): 1,
    ("kill", "mlflow_child"): 1,
    ("kill", "mlflow_group"): 2,
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """One blow."""

    pause_seconds: float
    """Before the next blow."""
    without_mercy: bool
    """The next blow comes whether or not the runs have recovered from this one."""
    how: How
    target: Target | None = None
    point: str | None = None
    """Where the process that reaches it dies (how=order)."""
    arrivals: int = 1
    """At which arrival there."""
    outage_seconds: float = 0.0
    """How long a stopped process stays stopped, or a killed MLflow server away."""

    @property
    def name(self) -> str:
        """What the report counts: `kill job`, `kill at checkpoint.written`."""
        return f"kill at {self.point}" if self.how == "order" else f"{self.how} {self.target}"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What is decided about one sweep before it starts."""

    number: int
    with_mlflow_server: bool
    opening: tuple[str, ...]
    """Points at which a process dies, ordered before the client starts."""
    evaluation: tuple[str, ...]
    """Likewise for the evaluations of its runs."""
    prediction: str
    """Likewise for a prediction after its end."""
    seed: str

    def actions(self) -> Iterator[Action]:
        """Yield blows for as long as somebody asks."""
        rng = random.Random(self.seed)
        weights = _WEIGHTS | (_MLFLOW_WEIGHTS if self.with_mlflow_server else {})
        points = itertools.cycle(_rotated(TRAINING_POINTS, self.number * 3))
        while True:
            ((how, target),) = rng.choices(list(weights), list(weights.values()))
            mlflow = target is not None and target.startswith("mlflow")
            yield Action(
                pause_seconds=rng.uniform(0.2, 2.5),
                without_mercy=rng.random() < 0.5,
                how=how,
                target=target,
                point=next(points) if how == "order" else None,
                arrivals=rng.randint(1, 3) if how == "order" else 1,
                outage_seconds=rng.uniform(0.5, 8.0) if mlflow else _STOP_SECONDS.get(target or "", 0.0),
            )


def plan_sweep(seed: int, number: int) -> SweepPlan:
    """Return the plan of sweep `number` (from 1). The points take turns, so that every one is ordered soon."""
    opening = _rotated(SUBMISSION_POINTS, 2 * (number - 1))
    evaluation = _rotated(EVALUATION_POINTS, 2 * (number - 1))
    return SweepPlan(
        number=number,
        with_mlflow_server=number % 3 == 2,
        opening=opening[:2],
        evaluation=evaluation[:2],
        prediction=_rotated(PREDICTION_POINTS, number - 1)[0],
        seed=f"{seed}/{number}",
    )


def _rotated(points: Sequence[str], offset: int) -> tuple[str, ...]:
    start = offset % len(points)
    return (*points[start:], *points[:start])
