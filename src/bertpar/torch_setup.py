"""What every process that computes with torch sets before it does."""

from __future__ import annotations

import torch

from bertpar.machine import usable_cpus


def use_threads(num_threads: int | None) -> None:
    """Have torch compute with `num_threads` CPU threads, on which bits depend; None for one per CPU that it may use."""
    torch.set_num_threads(num_threads or usable_cpus())
    if torch.get_num_interop_threads() != 1:  # can be set once in a process
        torch.set_num_interop_threads(1)
