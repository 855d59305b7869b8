"""On PYTHONPATH, this gives every process another time of day: an hour early, right, or an hour late, by its pid."""

import os
import time

_right = time.time


def _shifted() -> float:
    return _right() + (os.getpid() % 3 - 1) * 3600.0


time.time = _shifted
