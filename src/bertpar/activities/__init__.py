"""Activities by the queue whose workers run them."""

from collections.abc import Callable
from typing import Any

from bertpar.activities._job import job_starter
from bertpar.activities._slot import share
from bertpar.activities.evaluate import evaluate, predict
from bertpar.activities.report import make_report
from bertpar.activities.reuse import claim_run, look_up
from bertpar.activities.snapshot import make_snapshot
from bertpar.activities.tracking import close_run, open_run
from bertpar.activities.train import train

TRAINING_ACTIVITIES: list[Callable[..., Any]] = [train]
TRACKING_ACTIVITIES: list[Callable[..., Any]] = [open_run, close_run, make_report]
EVAL_ACTIVITIES: list[Callable[..., Any]] = [make_snapshot, claim_run, look_up, evaluate, predict]

__all__ = ["EVAL_ACTIVITIES", "TRACKING_ACTIVITIES", "TRAINING_ACTIVITIES", "job_starter", "share"]
