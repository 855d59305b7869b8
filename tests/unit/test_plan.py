"""Batches, learning rates and seeds are functions of the step."""

from dataclasses import replace

import numpy as np
import pytest

from bertpar.training.plan import BatchPlan, Share, learning_rate_at, seed_at, validation_steps
from tests import specs

PLAN = BatchPlan(num_examples=10, seed=3, batch_size=2, accumulate=2, max_epochs=3, max_steps=None)
OPTIM = replace(specs.OPTIM, lr=1.0)
TRAINER = replace(specs.TRAINER, max_epochs=3, batch_size=2, accumulate=2)


def test_an_epoch_sees_every_example_once() -> None:
    seen = [np.concatenate(PLAN.micro_batches(step)) for step in range(1, PLAN.steps_per_epoch + 1)]
    assert sorted(np.concatenate(seen)) == list(range(10))


def test_no_step_straddles_two_epochs() -> None:
    assert [len(np.concatenate(PLAN.micro_batches(step))) for step in range(1, 7)] == [4, 4, 2, 4, 4, 2]


def test_epochs_differ_in_order_and_seeds_differ_too() -> None:
    assert list(PLAN.permutation(0)) != list(PLAN.permutation(1))
    assert list(PLAN.permutation(0)) != list(replace(PLAN, seed=4).permutation(0))


def test_micro_batches_have_the_batch_size() -> None:
    assert [len(batch) for batch in PLAN.micro_batches(1)] == [2, 2]
    assert [len(batch) for batch in PLAN.micro_batches(3)] == [2]


def test_the_shares_of_a_step_are_its_examples() -> None:
    for step in range(1, 7):
        shares = [np.concatenate(PLAN.micro_batches(step, Share(rank, 3)) or [np.array([])]) for rank in range(3)]
        assert sorted(np.concatenate(shares)) == sorted(np.concatenate(PLAN.micro_batches(step)))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_cut_into_smaller_parts_at_once_where_memory_has_run_out() -> None:
    plan = BatchPlan(num_examples=64, seed=3, batch_size=32, accumulate=1, max_epochs=1, max_steps=None)
    half = Share(0, 2)
    assert [len(part) for part in plan.micro_batches(1, half)] == [plan.micro_batch_size(2)] == [16]
    assert [len(part) for part in replace(plan, batch_divisor=2).micro_batches(1, half)] == [8, 8]


def test_ranks_have_seeds_of_their_own() -> None:
    assert len({seed_at(5, 1), seed_at(5, 1, rank=1), seed_at(5, 1, rank=2), seed_at(6, 1, rank=1)}) == 4
    assert seed_at(5, 1, rank=0) == seed_at(5, 1)


def test_max_steps_cuts_the_plan() -> None:
    assert replace(PLAN, max_steps=5).total_steps == 5
    assert PLAN.total_steps == 9


@pytest.mark.parametrize(("schedule", "last"), [("linear", 1 / 9), ("constant", 1.0), ("cosine", 0.0301537)])
def test_the_schedule_warms_up_to_the_peak_and_goes_down(schedule: str, last: float) -> None:
    optim = replace(OPTIM, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate_at(step, 10, optim) for step in range(1, 11)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[-1] == pytest.approx(last)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_no_warmup_starts_at_the_peak_of_the_schedule() -> None:
    assert learning_rate_at(1, 10, replace(OPTIM, warmup_ratio=0.0)) == pytest.approx(10 / 11)


def test_seeds_differ_by_step_and_by_run() -> None:
    assert len({seed_at(step, seed) for step in range(1, 50) for seed in range(4)}) == 196


def test_validation_falls_on_epoch_ends_and_the_last_step() -> None:
    assert validation_steps(PLAN, TRAINER) == [3, 6, 9]
    assert validation_steps(replace(PLAN, max_steps=4), TRAINER) == [3, 4]
    assert validation_steps(PLAN, replace(TRAINER, validate_every_n_steps=4)) == [3, 4, 6, 8, 9]
