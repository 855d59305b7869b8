"""What every process that computes with torch sets before it does."""

from __future__ import annotations

import os

import torch


def use_threads(num_threads: int | None) -> None:
    """Have torch compute with `num_threads` CPU threads, on which bits depend; None for one per processor."""
    torch.set_num_threads(num_threads or os.cpu_count() or 1)
    if torch.get_num_interop_threads() != 1:  # can be set once in a process
        torch.set_num_interop_threads(1)
