"""What a worker has to give and what a run takes of it: pure accounting, for slots.py to carry out.

A worker has *slots*, one for each run that may compute at once. On a CPU it has threads besides, on GPUs the GPUs, over
which its slots are spread evenly. A run takes one slot for each of its devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bertpar.spec import Demand


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a worker has."""

    slots: int
    num_threads: int
    """CPU threads, which bound the runs where there are no GPUs."""
    gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them."""

    @property
    def slots_per_gpu(self) -> int:
        """Runs that a GPU carries at once."""
        return math.ceil(self.slots / len(self.gpus))

    def __str__(self) -> str:
        beside = f"{len(self.gpus)} GPUs" if self.gpus else f"{self.num_threads} CPU threads"
        return f"{self.slots} slots and {beside}"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What one run has got."""

    slots: int
    num_threads: int = 0
    """CPU threads; 0 on GPUs, whose runs they do not bound."""
    gpus: tuple[str, ...] = ()
    """One for each of its slots, all different; none on a CPU."""


def capacity_of(num_slots: int, num_cpus: int, gpus: Iterable[str] = ()) -> Capacity:
    """Return what a worker with `num_slots` has; who asks for more slots than there are CPUs gets a thread for each."""
    return Capacity(slots=num_slots, num_threads=max(num_cpus, num_slots), gpus=tuple(gpus))


def grant(demand: Demand, capacity: Capacity, granted: Iterable[Grant]) -> Grant | None:
    """Return what a run is to get beside those who have been `granted` something; None where too little is left.

    On GPUs it gets those that carry the fewest runs.
    """
    others = list(granted)
    free = capacity.slots - sum(other.slots for other in others)
    if demand.devices > free:
        return None
    if capacity.gpus:
        carried = [gpu for other in others for gpu in other.gpus]
        fewest_first = sorted(capacity.gpus, key=carried.count)  # stable: the order of the GPUs among equals
        chosen = tuple(gpu for gpu in fewest_first if carried.count(gpu) < capacity.slots_per_gpu)[: demand.devices]
        return Grant(slots=demand.devices, gpus=chosen) if len(chosen) == demand.devices else None
    num_threads = _threads_for(demand, capacity)
    if num_threads > capacity.num_threads - sum(other.num_threads for other in others):
        return None
    return Grant(slots=demand.devices, num_threads=num_threads)


def shortage(demand: Demand, capacity: Capacity, where: str) -> str | None:
    """Return why a run can never be granted what it wants by `where`, say "this worker", with the fix; None if it can.

    It could be, exactly if it could while nobody else has anything.
    """
    devices, has = demand.devices, f"{where} has {capacity}"
    if devices > capacity.slots:
        return f"trainer.devices={devices} takes {devices} slots; {has}. {_fix(devices, 'trainer.devices')}"
    if capacity.gpus:
        if devices > len(capacity.gpus):
            return (
                f"trainer.devices={devices} takes {devices} GPUs; {has}. Use a machine with more GPUs, or lower "
                "trainer.devices"
            )
        return None
    if (wanted := _threads_for(demand, capacity)) > capacity.num_threads:
        times = f" for each of trainer.devices={devices}" if devices > 1 else ""
        return (
            f"trainer.num_threads={demand.num_threads}{times} takes {wanted} CPU threads; {has}. "
            f"{_fix(wanted, 'trainer.num_threads')}"
        )
    return None


def at_most(demand: Demand, capacity: Capacity) -> Demand:
    """Return the demand, cut to what there is: for work that may be slow, but has to be done wherever it is."""
    threads = None if demand.num_threads is None else min(demand.num_threads, capacity.num_threads)
    return Demand(devices=1, num_threads=threads)


def _threads_for(demand: Demand, capacity: Capacity) -> int:
    """Return the CPU threads that a run computes with: all there are where it names no number."""
    return capacity.num_threads if demand.num_threads is None else demand.devices * demand.num_threads


def _fix(num_slots: int, key: str) -> str:
    return f"Use a machine with as many CPUs, ask for more with --slots {num_slots} (BERTPAR_SLOTS), or lower {key}"
