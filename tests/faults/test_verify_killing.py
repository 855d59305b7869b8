"""When verify-resume kills: seeded, spread, and met by the attempt that it is meant for."""

from __future__ import annotations

from bertpar.verify.killing import COMMIT_POINTS, STEP_DONE, Kill, arrivals_until, plan_kills

COMMITS = [4, 8, 12, 16]


def test_the_same_seed_gives_the_same_kills_and_another_seed_others() -> None:
    assert plan_kills(5, 1, 100, [50, 100]) == plan_kills(5, 1, 100, [50, 100])
    assert plan_kills(5, 1, 100, [50, 100]) != plan_kills(5, 2, 100, [50, 100])


def test_kills_come_in_order_and_at_every_point() -> None:
    kills = plan_kills(12, 0, 400, list(range(10, 401, 10)))
    assert [kill.step for kill in kills] == sorted(kill.step for kill in kills)
    assert {kill.point for kill in kills} == {STEP_DONE, *COMMIT_POINTS}
    assert all(kill.step % 10 == 0 for kill in kills if kill.point != STEP_DONE)


def test_there_are_never_more_kills_than_steps() -> None:
    assert 1 <= len(plan_kills(50, 0, 3, [3])) <= 3


def test_the_arrival_counts_from_where_the_attempt_starts() -> None:
    assert arrivals_until(Kill(step=7, point=STEP_DONE), 4, COMMITS) == 3
    assert arrivals_until(Kill(step=12, point=COMMIT_POINTS[0]), 4, COMMITS) == 2
    assert arrivals_until(Kill(step=12, point=COMMIT_POINTS[0]), 12, COMMITS) == 1
