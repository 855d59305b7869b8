"""What an activity has of its worker: it waits for it at no cost, computes with it, and gives it back in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from bertpar.activities import _slot, evaluate, predict
from bertpar.activities._slot import slot_for_evaluation, slot_for_training
from bertpar.capacity import Capacity, Grant, capacity_of
from bertpar.events import EvaluateJob, PredictJob
from bertpar.slots import Slots
from bertpar.spec import Demand
from tests.unit.stored_results import best_checkpoint
from tests.unit.test_identity import SNAPSHOT
from tests.unit.test_slots import settle

TWO_CORES = capacity_of(2, num_cpus=2)
ALL = Demand(num_threads=2)

Hold = Callable[[], AbstractAsyncContextManager[Grant]]
in_each_way = pytest.mark.parametrize(
    "hold",
    [lambda: slot_for_training(ALL, attempt=1), lambda: slot_for_evaluation(ALL)],
    ids=["training", "evaluation"],
)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Callable[[Capacity], Slots]:
    """Have activities share slots of that capacity."""

    def share(capacity: Capacity) -> Slots:
        slots = Slots(capacity)
        monkeypatch.setattr(_slot, "_slots", slots)
        return slots

    return share


@in_each_way
async def test_a_slot_is_given_back_whenever_its_activity_is_cancelled(
    shared: Callable[[Capacity], Slots], hold: Hold
) -> None:
    """Before it has it, while it is being given, and while it computes."""
    has_computed = []
    for num_tasks_between in range(15):
        slots = shared(TWO_CORES)
        before = await slots.take(ALL)
        computed = False

        async def compute() -> None:
            nonlocal computed
            async with hold():
                computed = True
                await asyncio.Event().wait()

        environment = ActivityEnvironment()
        running = asyncio.create_task(environment.run(compute))
        await settle()
        slots.give_back(before)
        for _ in range(num_tasks_between):
            await asyncio.sleep(0)
        environment.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await settle()
        assert not slots.would_wait(ALL), f"lost when cancelled {num_tasks_between} turns of the event loop later"
        has_computed.append(computed)
    assert (has_computed[0], has_computed[-1]) == (False, True)


async def test_heartbeats_of_who_waits_for_its_turn_tell_of_no_time_in_a_slot(
    shared: Callable[[Capacity], Slots],
) -> None:
    """What is charged for a worker that is lost is what its last heartbeat said."""
    slots, beats = shared(TWO_CORES), list[Any]()
    before = await slots.take(ALL)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.1))
    environment.on_heartbeat = lambda *details: beats.extend(details)

    async def compute() -> None:
        async with slot_for_training(ALL, attempt=1):
            pass

    running = asyncio.create_task(environment.run(compute))
    await asyncio.sleep(0.2)
    slots.give_back(before)
    await running
    assert len(beats) > 1
    assert {beat["seconds"] for beat in beats} == {0.0}


EVALUATION = EvaluateJob(
    store_root="/nowhere", run_id="s/0", spec_key="specs/0", snapshot=SNAPSHOT, checkpoint=best_checkpoint("s/0")
)
PREDICTION = PredictJob(
    store_root="/nowhere",
    spec_key="specs/0",
    snapshot=SNAPSHOT,
    checkpoint=best_checkpoint("s/0"),
    input_key="predictions/p/input",
    output_key="predictions/p/output",
)


@pytest.mark.parametrize(("work", "job"), [(evaluate, EVALUATION), (predict, PREDICTION)])
@pytest.mark.parametrize(
    ("capacity", "wanted", "granted"),
    [
        (TWO_CORES, 1, 1),
        (TWO_CORES, 8, 2),
        (TWO_CORES, None, 2),
        (capacity_of(1, num_cpus=2, gpus=("0",)), 8, None),
    ],
)
async def test_an_evaluation_is_to_compute_with_the_threads_that_it_was_granted(
    shared: Callable[[Capacity], Slots],
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Any], Awaitable[Any]],
    job: Any,
    capacity: Capacity,
    wanted: int | None,
    granted: int | None,
) -> None:
    started: list[tuple[Any, Any]] = []

    async def start(kind: str, job: Any, *_: Any, gpus: Any) -> None:
        started.append((job.demand, gpus))

    shared(capacity)
    monkeypatch.setattr(import_module("bertpar.activities.evaluate"), "run_with_heartbeats", start)
    await ActivityEnvironment().run(work, replace(job, demand=Demand(devices=2, num_threads=wanted)))
    assert started == [(Demand(num_threads=granted), capacity.gpus)]
