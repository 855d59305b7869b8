"""Ids that are shortened: which sweeps a text may stand for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bertpar.listing import SweepEntry
from bertpar.naming import describe_candidates, matching, near, split_run

SWEEPS = ["movie_reviews-1123-194501-4f2a", "movie_reviews-1122-080000-0b1c", "mine-1121-194501-aa00"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("movie_reviews-1123-194501-4f2a", SWEEPS[:1]),
        ("mine", SWEEPS[2:]),
        ("movie_reviews-1122", SWEEPS[1:2]),
        ("4f2a", SWEEPS[:1]),
        ("4f", SWEEPS[:1]),
        ("1121-1945", SWEEPS[2:]),
        ("last", SWEEPS[:1]),
        ("movie", SWEEPS[:2]),
        ("194501", [SWEEPS[0], SWEEPS[2]]),
        ("f2a", []),  # not from the beginning of a part: too easily another's
        ("nope", []),
        ("", []),
    ],
)
def test_a_text_stands_for_the_ids_of_which_it_begins_a_part(text: str, meant: list[str]) -> None:
    assert matching(text, SWEEPS) == meant


def test_a_whole_id_is_never_ambiguous() -> None:
    assert matching("a-1", ["a-1", "a-1-2"]) == ["a-1"]


def test_last_is_nothing_where_there_is_no_sweep() -> None:
    assert matching("last", []) == []


@pytest.mark.parametrize("text", ["4f2b", "movie_reviews-1123-194501-4f2b", "movie_reviews-1123-194510-4f2a"])
def test_what_is_mistyped_is_near_what_was_meant(text: str) -> None:
    assert near(text, SWEEPS)[0] == SWEEPS[0]


def test_what_is_like_nothing_is_near_nothing() -> None:
    assert near("zzzzzz", SWEEPS) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("4f2a/3", ("4f2a", 3)),
        ("last/03", ("last", 3)),
        ("4f2a", None),
        ("4f2a/", None),
        ("/3", None),
        ("a/3/train", None),
    ],
)
def test_a_run_is_a_sweep_and_a_number(text: str, parts: tuple[str, int] | None) -> None:
    assert split_run(text) == parts


def test_candidates_are_told_with_status_and_start() -> None:
    started = datetime(2026, 11, 23, 19, 45, 1, tzinfo=UTC)
    entry = SweepEntry(sweep_id=SWEEPS[0], status="running", started_at=started, num_runs=None)
    told = describe_candidates([entry], num_more=2)
    assert told.splitlines()[0] == f"  {SWEEPS[0]}  running    started {started.astimezone():%Y-%m-%d %H:%M:%S}"
    assert told.splitlines()[1] == "  and 2 more: bertpar ls"
