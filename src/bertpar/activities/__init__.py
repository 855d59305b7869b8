"""Activities by the queue whose workers run them."""

from bertpar.activities.evaluate import evaluate, predict
from bertpar.activities.snapshot import make_snapshot
from bertpar.activities.tracking import close_run, open_run
from bertpar.activities.train import train

TRAINING_ACTIVITIES = [train]
EVAL_ACTIVITIES = [make_snapshot, open_run, close_run, evaluate, predict]

__all__ = ["EVAL_ACTIVITIES", "TRAINING_ACTIVITIES"]
