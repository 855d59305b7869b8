"""What a failure means for the next attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bertpar.errors import ERRORS, Action
from bertpar.events import Failure
from bertpar.states import Adjustments
from bertpar.workflows.failures import RetryBudget, last_frame

NOW = timedelta(0)


def failure(error_type: str, step: int | None = None) -> Failure:
    return Failure(error_type=error_type, message="", step=step)


def delays(
    error_type: str, number: int, *, progressed: bool = False, nan_lr_factor: float | None = None
) -> list[timedelta | None]:
    budget = RetryBudget(5, nan_lr_factor, Adjustments())
    return [budget.delay_after(failure(error_type), progressed=progressed) for _ in range(number)]


def seconds(*values: float) -> list[timedelta | None]:
    return [timedelta(seconds=value) for value in values]


@pytest.mark.parametrize("error_type", ["WorkerLostError", "PreemptedError"])
def test_a_lost_worker_is_never_the_runs_fault(error_type: str) -> None:
    assert delays(error_type, 99) == [NOW] * 99


@pytest.mark.parametrize("error_type", [name for name, cls in ERRORS.items() if cls.action is Action.FINAL])
def test_a_deterministic_failure_is_final_at_once(error_type: str) -> None:
    assert delays(error_type, 1) == [None]


def test_a_crash_is_tried_again_with_growing_delay_up_to_the_limit() -> None:
    assert delays("ProcessDiedError", 5) == [*seconds(1, 2, 4, 8), None]


def test_progress_between_crashes_renews_the_budget() -> None:
    assert delays("ProcessDiedError", 99, progressed=True) == seconds(1) * 99


@pytest.mark.parametrize("error_type", ["StoreError", "DiskFullError", "ConnectionFailedError"])
def test_an_outage_is_waited_for_without_limit_and_asked_after_once_a_minute(error_type: str) -> None:
    assert delays(error_type, 99)[:7] == seconds(1, 2, 4, 8, 16, 32, 60)
    assert set(delays(error_type, 99)[7:]) == set(seconds(60))


def test_an_unknown_error_is_worth_another_try() -> None:
    assert delays("ZeroDivisionError", 1) == seconds(1)


def test_out_of_memory_halves_the_micro_batch_and_is_final_the_second_time_at_the_same_step() -> None:
    budget = RetryBudget(5, None, Adjustments())
    assert budget.adjustments.batch_divisor == 1
    assert budget.delay_after(failure("OutOfMemoryError", step=7), progressed=False) == NOW
    assert budget.adjustments.batch_divisor == 2
    assert budget.delay_after(failure("OutOfMemoryError", step=9), progressed=True) == NOW
    assert budget.adjustments.batch_divisor == 4
    assert budget.delay_after(failure("OutOfMemoryError", step=7), progressed=False) is None


def test_a_nan_loss_is_tried_once_more_at_a_lower_rate_where_that_is_allowed() -> None:
    budget = RetryBudget(5, 0.5, Adjustments())
    assert budget.delay_after(failure("NotANumberError"), progressed=True) == NOW
    assert budget.adjustments.lr_scale == 0.5
    assert budget.delay_after(failure("NotANumberError"), progressed=True) is None


def test_the_last_frame_of_a_traceback_is_where_it_happened() -> None:
    traceback = (
        'Traceback\n  File "a.py", line 1, in f\n    g()\n  File "b.py", line 2, in g\n    1 / 0\nZeroDivisionError'
    )
    assert last_frame(traceback) == 'File "b.py", line 2, in g'
    assert last_frame(None) is None
