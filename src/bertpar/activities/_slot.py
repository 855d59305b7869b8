"""A slot of this worker for what an activity computes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from temporalio import activity

from bertpar.activities._job import Pulse, application_error, heartbeats
from bertpar.capacity import Grant, at_most
from bertpar.errors import BertparError, PreemptedError, failure_of
from bertpar.events import Progress
from bertpar.machine import default_training_slots, machine_capacity
from bertpar.slots import Slots
from bertpar.spec import Demand

_slots: Slots | None = None


def share(slots: Slots) -> None:
    """Have all activities of this process take what they compute with from `slots`."""
    global _slots
    _slots = slots


def shared_slots() -> Slots:
    """Return what the activities of this process share; a worker's default where nobody said."""
    if _slots is None:
        share(Slots(machine_capacity(default_training_slots())))
    assert _slots is not None
    return _slots


@asynccontextmanager
async def slot_for_training(demand: Demand, attempt: int) -> AsyncIterator[Grant]:
    """Hold what the training takes; until its turn comes, heartbeats tell that it waits.

    Raises:
        ApplicationError: WorkerTooSmallError; PreemptedError, where the worker is stopped meanwhile.
    """
    slots = shared_slots()
    pulse = Pulse(longest_start_seconds=math.inf, has_begun=False)
    if slots.would_wait(demand):
        waiting = f"its turn on a worker with {slots.capacity}"
        pulse.details = [asdict(Progress(attempt=attempt, phase="starting", waiting=waiting))]
    async with _held(slots) as held:
        async with heartbeats(pulse):
            try:
                held.append(granted := await _turn(slots, demand))
            except BertparError as error:
                raise application_error(failure_of(error)) from error
        yield granted


@asynccontextmanager
async def slot_for_evaluation(demand: Demand) -> AsyncIterator[Grant]:
    """Hold what the evaluation of a run takes: one device, and no more threads than there are."""
    slots = shared_slots()
    async with _held(slots) as held:
        async with heartbeats():
            held.append(granted := await slots.take(at_most(demand, slots.capacity)))
        yield granted


@asynccontextmanager
async def _held(slots: Slots) -> AsyncIterator[list[Grant]]:
    """Yield a list, and give back what was put into it: also what is held already when its heartbeats' end fails."""
    held: list[Grant] = []
    try:
        yield held
    finally:
        for granted in held:
            slots.give_back(granted)


async def _turn(slots: Slots, demand: Demand) -> Grant:
    """Return what is granted; whoever still waits when the worker is stopped goes at once, to wait elsewhere."""
    turn = asyncio.create_task(slots.take(demand))
    stop = asyncio.create_task(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait({turn, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not turn.done():
            raise PreemptedError("the worker was stopped while the run waited for its turn")
        return turn.result()
    except BaseException:
        turn.cancel()
        turn.add_done_callback(lambda done: _return_unwanted(slots, done))
        raise
    finally:
        stop.cancel()


def _return_unwanted(slots: Slots, turn: asyncio.Task[Grant]) -> None:
    if not turn.cancelled() and turn.exception() is None:
        slots.give_back(turn.result())
