"""How a worker's capacity is divided: what one run gets, and that all together never get more than there is."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bertpar.capacity import Capacity, Grant, at_most, capacity_of, grant, shortage
from bertpar.spec import Demand

TWO_CORES = capacity_of(2, num_cpus=2)
TWO_GPUS = capacity_of(4, num_cpus=8, gpus=("0", "1"))


def test_a_run_on_a_cpu_takes_a_slot_and_its_threads() -> None:
    assert grant(Demand(), TWO_CORES, []) == Grant(slots=1, num_threads=1)
    assert grant(Demand(devices=2), TWO_CORES, []) == Grant(slots=2, num_threads=2)


def test_two_threads_do_not_begin_beside_one_on_two_cores() -> None:
    one = grant(Demand(), TWO_CORES, [])
    assert one is not None
    assert grant(Demand(num_threads=2), TWO_CORES, [one]) is None
    assert grant(Demand(num_threads=1), TWO_CORES, [one]) == one


def test_all_the_threads_there_are_leave_none_for_others() -> None:
    everything = grant(Demand(num_threads=None), TWO_CORES, [])
    assert everything == Grant(slots=1, num_threads=2)
    assert grant(Demand(), TWO_CORES, [everything]) is None


def test_one_slot_has_all_the_threads_of_its_machine() -> None:
    assert shortage(Demand(num_threads=8), capacity_of(1, num_cpus=8), "it") is None


def test_more_slots_than_cpus_have_a_thread_each() -> None:
    assert capacity_of(4, num_cpus=2).num_threads == 4


def test_a_run_gets_the_gpus_that_carry_the_fewest_runs() -> None:
    granted: list[Grant] = []
    for expected in ("0", "1", "0", "1"):
        got = grant(Demand(), TWO_GPUS, granted)
        assert got is not None
        assert got.gpus == (expected,)
        granted.append(got)
    assert grant(Demand(), TWO_GPUS, granted) is None


def test_a_run_over_two_gpus_gets_two_different_ones() -> None:
    assert grant(Demand(devices=2), TWO_GPUS, []) == Grant(slots=2, gpus=("0", "1"))
    full = [Grant(slots=1, gpus=("0",))] * 2
    assert grant(Demand(devices=2), TWO_GPUS, full) is None
    assert grant(Demand(), TWO_GPUS, full) == Grant(slots=1, gpus=("1",))


def test_cpu_threads_do_not_bound_the_runs_on_gpus() -> None:
    assert grant(Demand(num_threads=100), TWO_GPUS, []) == Grant(slots=1, gpus=("0",))


@pytest.mark.parametrize(
    ("demand", "capacity", "told"),
    [
        (Demand(devices=3), TWO_CORES, ("trainer.devices=3", "2 slots and 2 CPU threads", "--slots 3")),
        (Demand(num_threads=3), TWO_CORES, ("trainer.num_threads=3", "2 slots and 2 CPU threads", "--slots 3")),
        (Demand(devices=2, num_threads=2), TWO_CORES, ("trainer.devices=2", "4 CPU threads", "--slots 4")),
        (Demand(devices=3), TWO_GPUS, ("trainer.devices=3", "3 GPUs", "4 slots and 2 GPUs")),
    ],
)
def test_what_a_worker_can_never_give_is_told_with_what_it_has_and_the_fix(
    demand: Demand, capacity: Capacity, told: tuple[str, ...]
) -> None:
    problem = shortage(demand, capacity, "this worker")
    assert problem is not None
    assert all(part in problem for part in (*told, "this worker has")), problem


def test_evaluation_takes_one_device_and_no_more_than_there_is() -> None:
    assert at_most(Demand(devices=2, num_threads=8), TWO_CORES) == Demand(num_threads=2)
    assert at_most(Demand(num_threads=None), TWO_CORES) == Demand(num_threads=None)


def test_whatever_comes_and_goes_nothing_is_given_twice_and_nothing_is_refused_for_ever() -> None:
    draw = random.Random(5)
    for _ in range(200):
        gpus = tuple(map(str, range(draw.choice([0, 0, 1, 2, 3]))))
        capacity = capacity_of(draw.randint(1, 6), num_cpus=draw.randint(1, 8), gpus=gpus)
        granted: list[Grant] = []
        for _ in range(50):
            demand = Demand(devices=draw.randint(1, 4), num_threads=draw.choice([None, 1, 1, 2, 4]))
            assert (grant(demand, capacity, []) is None) == (shortage(demand, capacity, "it") is not None)
            if (got := grant(demand, capacity, granted)) is not None:
                granted.append(got)
            elif granted:
                granted.pop(draw.randrange(len(granted)))
            assert sum(one.slots for one in granted) <= capacity.slots
            if gpus:
                carried = Counter(gpu for one in granted for gpu in one.gpus)
                assert all(count <= capacity.slots_per_gpu for count in carried.values())
                assert all(len(set(one.gpus)) == one.slots for one in granted)
            else:
                assert sum(one.num_threads for one in granted) <= capacity.num_threads
