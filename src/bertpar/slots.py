"""Divides a worker's capacity among the runs that it carries: first come, first served, and never more than there is.

What a run wants is known only when its task has been taken. So that no run waits here while another worker is idle, a
worker asks for one task at a time, and only while it could carry a small one and nobody waits: at most one task is then
taken that cannot begin, and nothing comes before that one.
"""

from __future__ import annotations

import asyncio

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

from bertpar.capacity import Capacity, Grant, grant, shortage
from bertpar.errors import WorkerTooSmallError
from bertpar.spec import SMALLEST_DEMAND, Demand


class Slots:
    """The slots of one worker, used from the event loop in which they were made.

    Whoever came first is served first, also where somebody behind wants less: no number of small runs starves a large
    one.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._granted: list[Grant] = []
        self._line: list[object] = []
        """Those who wait, first come first."""
        self._poll: SlotPermit | None = None
        """Permits one task to be taken, of which nobody knows yet what it wants."""
        self._changed = asyncio.Event()

    async def take(self, demand: Demand) -> Grant:
        """Return what a run wants, once its turn has come and there is enough of it. It has to be given back.

        Raises:
            WorkerTooSmallError: there never will be.
        """
        self.end_poll(self._poll)
        if problem := shortage(demand, self.capacity, "this worker"):
            raise WorkerTooSmallError(problem)
        place = object()
        self._line.append(place)
        try:
            while self._line[0] is not place or (granted := grant(demand, self.capacity, self._granted)) is None:
                await self._changed.wait()
            self._granted.append(granted)
            return granted
        finally:
            self._line.remove(place)
            self._tell()

    def give_back(self, granted: Grant) -> None:
        """Let others have what a run had."""
        self._granted.remove(granted)
        self._tell()

    def would_wait(self, demand: Demand) -> bool:
        """Say whether somebody who came now had to wait."""
        return bool(self._line) or grant(demand, self.capacity, self._granted) is None

    async def next_poll(self) -> SlotPermit:
        """Return the permit to take one task, as soon as the one before has said what it wants and there is a slot."""
        while self._poll is not None or self.would_wait(SMALLEST_DEMAND):
            await self._changed.wait()
        self._poll = SlotPermit()
        return self._poll

    def end_poll(self, permit: SlotPermit | None) -> None:
        """Take a permit back: its task has said what it wants, or there was none."""
        if permit is self._poll:
            self._poll = None
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _TasksForFreeSlots(CustomSlotSupplier):
    """Has a Temporal worker take tasks as `Slots` permits."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._loop = asyncio.get_running_loop()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        return await self._slots.next_poll()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        return None  # for activities that a workflow's worker starts itself: training is on another

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None: ...

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        self._loop.call_soon_threadsafe(self._slots.end_poll, ctx.permit)  # the SDK calls from threads of its own


def tuner(slots: Slots) -> WorkerTuner:
    """Return what has a worker take activities for free slots alone; of the other tasks, which it has none of, one."""
    one = FixedSizeSlotSupplier(1)
    return WorkerTuner.create_composite(
        workflow_supplier=one,
        activity_supplier=_TasksForFreeSlots(slots),
        local_activity_supplier=one,
        nexus_supplier=one,
    )
