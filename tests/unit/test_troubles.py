"""What a follower and `bertpar status` say of a running attempt that does not go on."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bertpar.events import Progress
from bertpar.observe import RunView, SweepView, unusual_silence
from bertpar.plain_log import PlainLog
from bertpar.render import live_table
from tests.unit.test_pages import sweep_view

DISK = "storage: No space left on device"


def training(waiting: str | None = None, silent_seconds: float | None = None) -> SweepView:
    """Return a sweep of one whose attempt is at step 3 of 10."""
    view = sweep_view(1)
    state = replace(view.runs[0].state, status="training", attempt=1, step=3, total_steps=10)
    progress = Progress(attempt=1, phase="training", step=3, total_steps=10, waiting=waiting)
    run = RunView(state=state, status="training", progress=progress, silent_seconds=silent_seconds)
    return replace(view, runs=(run,))


def table(view: SweepView) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(live_table(view))
    return text.getvalue()


def test_an_attempt_that_waits_says_for_what() -> None:
    assert f"[0] waits for {DISK}" in table(training(waiting=DISK))
    assert "[0]" not in table(training())


def test_a_wait_is_logged_once() -> None:
    log = PlainLog(beside_table=False)
    log.news(training())
    assert [line for line in log.news(training(waiting=DISK)) if "waits" in line] == [f"[0] lr=0: waits for {DISK}"]
    assert log.news(training(waiting=DISK)) == []


def test_scripts_see_what_an_attempt_waits_for() -> None:
    assert training(waiting=DISK).as_json()["runs"][0]["waiting"] == DISK
    ended = replace(training(waiting=DISK).runs[0], state=sweep_view(1).runs[0].state)
    assert ended.as_json()["waiting"] is None


def test_a_silent_attempt_says_for_how_long() -> None:
    assert "[0] no sign of life for 7 s" in table(training(silent_seconds=7.2))


@pytest.mark.parametrize(("seconds", "expected"), [(2.0, None), (7.0, 7.0), (25.0, None), (-3600.0, None)])
def test_a_silence_counts_between_a_late_heartbeat_and_a_wrong_clock(seconds: float, expected: float | None) -> None:
    assert unusual_silence(seconds, heartbeat_timeout_seconds=10) == expected


def test_a_paused_sweep_says_why_and_how_to_go_on() -> None:
    view = sweep_view(1)
    paused = replace(view, sweep=replace(view.sweep, paused="the first runs failed alike, with KeyError: 'x'"))
    assert "paused: the first runs failed alike" in table(paused)
    log = PlainLog(beside_table=True)
    (line,) = log.news(paused)
    assert "bertpar resume s" in line
    assert log.news(paused) == []
    assert log.news(view) == []


def test_what_an_attempt_notes_is_said_once() -> None:
    view = training()
    assert view.runs[0].progress is not None
    noted = replace(view.runs[0], progress=replace(view.runs[0].progress, notes=("step 6 was damaged",)))
    log = PlainLog(beside_table=True)
    assert log.news(replace(view, runs=(noted,))) == ["[0] lr=0: step 6 was damaged"]
    assert log.news(replace(view, runs=(noted,))) == []
