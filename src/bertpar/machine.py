"""What of this machine the present process may use."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import takewhile

from bertpar.capacity import Capacity, capacity_of


def usable_cpus() -> int:
    """Return the number of CPUs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs, as CUDA_VISIBLE_DEVICES names them."""
    # Not through torch: a worker that imported it would hold gigabytes and could no longer fork cleanly.
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    num_gpus = sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    numbers = [str(i) for i in range(num_gpus)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not numbers:
        return numbers
    names = [name.strip() for name in visible.split(",")]
    # CUDA sees those before the first name of none: whoever writes -1, or nothing, wants no GPU
    return list(takewhile(lambda name: name in numbers or name.startswith(("GPU-", "MIG-")), names))


def default_training_slots() -> int:
    """Return how many runs are trained at once where nobody chose a number: one per GPU, else one per CPU."""
    return len(visible_gpus()) or usable_cpus()


def machine_capacity(num_slots: int) -> Capacity:
    """Return what a worker with `num_slots` has on this machine."""
    return capacity_of(num_slots, usable_cpus(), visible_gpus())
