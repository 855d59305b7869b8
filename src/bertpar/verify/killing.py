"""When a training is killed to prove that it does not matter. Pure functions of a seed."""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

from bertpar import store

STEP_DONE = "step.done"
COMMIT_POINTS = tuple(point for point in store.POINTS if point.startswith("checkpoint."))
"""Named points of the code (bertpar.faults) at which a training process can be told to die."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill -9 at `step`: right after its weights have changed, or within the commit of its checkpoint."""

    step: int
    point: str


def plan_kills(num_kills: int, seed: int, total_steps: int, commit_steps: Sequence[int]) -> list[Kill]:
    """Return kills in the order of their steps: by turns after a step, and at a named point of a commit.

    Every step is as likely as every other. Where fewer steps are left than kills, there are fewer kills.
    """
    rng = random.Random(seed)
    kills: list[Kill] = []
    points = rng.sample(COMMIT_POINTS, len(COMMIT_POINTS))
    for number, step in enumerate(sorted(rng.sample(range(1, total_steps + 1), min(num_kills, total_steps)))):
        if number % 2:
            commit = commit_steps[bisect.bisect_left(commit_steps, step)]  # the last step commits: there is one
            kills.append(Kill(step=commit, point=points[number // 2 % len(points)]))
        elif not kills or step > kills[-1].step:  # else a commit may have it behind it
            kills.append(Kill(step=step, point=STEP_DONE))
    return kills


def arrivals_until(kill: Kill, resumed_from: int, commit_steps: Sequence[int]) -> int:
    """Return at which arrival at its point an attempt that starts from step `resumed_from` meets the kill.

    A kill at a step that is done already comes at the first arrival.
    """
    if kill.point == STEP_DONE:
        return max(1, kill.step - resumed_from)
    return max(1, sum(resumed_from < step <= kill.step for step in commit_steps))
