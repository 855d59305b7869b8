"""The line in front of a worker's slots: first come, first served, and one unknown task at a time."""

from __future__ import annotations

import asyncio
import random

import pytest

from bertpar.capacity import Grant, capacity_of
from bertpar.errors import WorkerTooSmallError
from bertpar.slots import Slots
from bertpar.spec import Demand


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_small_runs_that_keep_coming_do_not_starve_a_large_one() -> None:
    slots = Slots(capacity_of(2, num_cpus=2))
    first, second = [await slots.take(Demand()) for _ in range(2)]
    large = asyncio.create_task(slots.take(Demand(num_threads=2)))
    await settle()
    small = asyncio.create_task(slots.take(Demand()))
    slots.give_back(first)
    await settle()
    assert not large.done()
    assert not small.done()  # there is a slot for it, but the large one came first
    slots.give_back(second)
    assert await large == Grant(slots=1, num_threads=2)
    await settle()
    assert not small.done()
    slots.give_back(large.result())
    assert await small == Grant(slots=1, num_threads=1)


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    slots = Slots(capacity_of(1, num_cpus=1))
    holder = await slots.take(Demand())
    waiting, behind = asyncio.create_task(slots.take(Demand())), asyncio.create_task(slots.take(Demand()))
    await settle()
    waiting.cancel()
    slots.give_back(holder)
    assert await asyncio.wait_for(behind, 1) == holder


async def test_a_run_that_is_too_large_is_told_so_and_waits_for_nothing() -> None:
    slots = Slots(capacity_of(2, num_cpus=2))
    with pytest.raises(WorkerTooSmallError, match=r"trainer\.devices=3 takes 3 slots; this worker has 2 slots"):
        await slots.take(Demand(devices=3))
    assert not slots.would_wait(Demand(devices=2))


async def test_the_next_task_is_taken_only_when_the_last_one_has_said_what_it_wants() -> None:
    slots = Slots(capacity_of(2, num_cpus=2))
    await slots.next_poll()
    another = asyncio.create_task(slots.next_poll())
    await settle()
    assert not another.done()  # the first may bring a run that takes everything
    await slots.take(Demand(num_threads=1))
    await asyncio.wait_for(another, 1)


async def test_no_task_is_taken_while_everything_is_in_use_or_somebody_waits() -> None:
    slots = Slots(capacity_of(2, num_cpus=2))
    await slots.next_poll()
    one = await slots.take(Demand())
    await slots.next_poll()
    large = asyncio.create_task(slots.take(Demand(num_threads=2)))
    poll = asyncio.create_task(slots.next_poll())
    await settle()
    assert not poll.done()  # a slot is free, but not for whoever comes next
    slots.give_back(one)
    both = await large
    await settle()
    assert not poll.done()
    slots.give_back(both)
    await asyncio.wait_for(poll, 1)


async def test_a_poll_that_brought_nothing_is_followed_by_another() -> None:
    slots = Slots(capacity_of(1, num_cpus=1))
    slots.end_poll(await slots.next_poll())
    await asyncio.wait_for(slots.next_poll(), 1)


async def test_everybody_gets_a_turn_and_nobody_more_than_there_is() -> None:
    draw = random.Random(3)
    slots = Slots(capacity_of(4, num_cpus=4))
    running: list[Grant] = []
    order: list[int] = []

    async def run(number: int) -> None:
        granted = await slots.take(Demand(devices=draw.choice([1, 1, 2, 4]), num_threads=1))
        order.append(number)
        running.append(granted)
        assert sum(one.num_threads for one in running) <= 4
        for _ in range(draw.randrange(5)):
            await asyncio.sleep(0)
        running.remove(granted)
        slots.give_back(granted)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(run(number))
    assert order == list(range(200))
