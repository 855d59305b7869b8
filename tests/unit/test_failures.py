"""What a failure means for the next attempt."""

from datetime import timedelta

import pytest

from bertpar.events import Failure
from bertpar.workflows.failures import delay_before_retry


def failure(error_type: str) -> Failure:
    return Failure(error_type=error_type, message="")


@pytest.mark.parametrize("error_type", ["WorkerLostError", "PreemptedError"])
def test_a_lost_worker_is_never_the_runs_fault(error_type: str) -> None:
    assert delay_before_retry(failure(error_type), 99, 5) == timedelta(0)


@pytest.mark.parametrize("error_type", ["NotANumberError", "DataError", "ModelError", "ConfigError"])
def test_a_deterministic_failure_is_final_at_once(error_type: str) -> None:
    assert delay_before_retry(failure(error_type), 1, 5) is None


def test_a_crash_is_tried_again_with_growing_delay_up_to_the_limit() -> None:
    delays = [delay_before_retry(failure("ProcessDiedError"), n, 5) for n in range(1, 6)]
    assert delays == [
        timedelta(seconds=1),
        timedelta(seconds=2),
        timedelta(seconds=4),
        timedelta(seconds=8),
        None,
    ]


def test_an_unknown_error_is_worth_another_try() -> None:
    assert delay_before_retry(failure("ZeroDivisionError"), 1, 5) == timedelta(seconds=1)
