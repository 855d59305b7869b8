"""The page of a report: everything is in it, nothing is loaded, and no text of a user becomes a part of it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bertpar.attempts import TrainingAttempt
from bertpar.compare import compare, read_sweep_results
from bertpar.events import Failure
from bertpar.observe import RunView, SweepView
from bertpar.report import Contents, render, svg
from bertpar.report.contents import Curves
from bertpar.report.curves import MOST_POINTS, thinned
from bertpar.report.examples import confusions, worst_errors
from bertpar.report.timeline import timeline_of
from bertpar.states import RunState
from bertpar.store import Store
from bertpar.why import RunRecord
from tests.unit.stored_results import stored_run, sweep_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
EVIL = '<script>alert(1)</script> "quoted" & \x00\x1b[31m'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def attempt(number: int, start: int, end: int, **changes: Any) -> TrainingAttempt:
    """Return an attempt that waited for a second, and ran from `start` to `end` seconds past noon."""
    known: dict[str, Any] = {"outcome": "completed", "resumed_from_step": 0, "reached_step": 10, "heard_from": "result"}
    times = {"started_at": NOON + timedelta(seconds=start), "ended_at": NOON + timedelta(seconds=end)}
    return TrainingAttempt(
        number=number, queued_at=NOON + timedelta(seconds=start - 1), **{**known, **times, **changes}
    )


def killed_and_resumed(run_id: str) -> RunRecord:
    failure = Failure(error_type="ProcessDiedError", message=f"killed {EVIL}")
    first = attempt(1, 1, 20, outcome="failed", cause=failure, reached_step=7, heard_from="heartbeat", lost_steps=3)
    second = attempt(2, 31, 60, resumed_from_step=4)
    return RunRecord(run_id=run_id, status="completed", failure=None, attempts=(first, second), evaluation=None)


def contents(store: Store, *runs: RunState, **changes: Any) -> Contents:
    results = read_sweep_results(sweep_of(store, *runs), store)
    made = Contents(
        view=SweepView(sweep=sweep_of(store, *runs), runs=tuple(RunView(state=run, status=run.status) for run in runs)),
        status="completed",
        made_at=NOON + timedelta(hours=1),
        comparison=compare([results]) if results.runs else None,
        no_comparison=None if results.runs else "no run has completed",
        results=results.runs,
        curves=tuple(
            Curves(run_id=run.run.run_id, validation=((5, 0.5), (10, 0.6)), train_loss=((1, 0.7), (9, 0.2)))
            for run in runs
        ),
        records=tuple(killed_and_resumed(run.run.run_id) for run in runs),
    )
    return replace(made, **changes)


def three_runs(store: Store) -> tuple[RunState, ...]:
    right = [True] * 30 + [False] * 10
    return (
        stored_run(store, "s/0", right, lr=0.1, seed=1, validation=0.8),
        stored_run(store, "s/1", right, lr=0.1, seed=2, validation=0.7),
        stored_run(store, "s/2", right[::-1], lr=0.2, seed=1, validation=0.6),
    )


class Reader(HTMLParser):
    """Collects what a browser would: elements, the addresses they load, ids of sections."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.sections: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data", "action"):
                self.loaded.append(value or "")
            if tag == "section" and key == "id":
                self.sections.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_every_section_and_loads_nothing(store: Store) -> None:
    page = render(contents(store, *three_runs(store)))
    read = Reader(page)
    assert read.open == []
    assert read.sections == [
        "conclusion",
        "comparison",
        "curves",
        "swept",
        "confusions",
        "runs",
        "timeline",
        "errors",
    ]
    assert read.loaded == []
    assert "script" not in read.tags
    assert not re.search(r"https?://|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert "is better than the runner-up lr=0.2" in page or "not separable" in page
    assert page.count('class="line c') > 6


def test_no_text_of_a_user_becomes_a_part_of_the_page(store: Store) -> None:
    runs = three_runs(store)
    evil = tuple(replace(run, run=replace(run.run, swept={**run.run.swept, "data": EVIL})) for run in runs)
    made = contents(store, *evil)
    texts = tuple(f"{EVIL} {text}" for text in made.results[0].test_set.texts)
    results = tuple(replace(run, test_set=replace(run.test_set, texts=texts)) for run in made.results)
    assert made.comparison is not None
    row = made.comparison.rows[0]
    configuration = replace(row.configuration, runs=results[:2])
    comparison = replace(made.comparison, rows=(replace(row, configuration=configuration), *made.comparison.rows[1:]))
    page = render(replace(made, results=results, comparison=comparison))
    assert page.count("&lt;script&gt;alert(1)") > 5
    assert "script" not in Reader(page).tags
    assert "\x00" not in page
    assert "\x1b" not in page
    assert page.encode("utf-8")


def test_a_sweep_of_which_nothing_completed_has_a_page_that_says_so(store: Store) -> None:
    run = replace(three_runs(store)[0], status="failed", failure=Failure(error_type="DataError", message="no rows"))
    page = render(contents(store, run, curves=(), notes=["No learning curves: MLflow is away"]))
    assert "Nothing is compared: no run has completed" in page
    assert "No learning curves: MLflow is away" in page
    assert Reader(page).sections == ["conclusion", "runs", "timeline"]


def test_a_page_of_a_regression_has_distances_and_no_confusions(store: Store) -> None:
    labels = [float(i) for i in range(20)]
    near, far = [label + 0.5 for label in labels], [-label for label in labels]
    runs = (
        stored_run(store, "s/0", near, lr=0.1, labels=labels, validation=0.9),
        stored_run(store, "s/1", far, lr=0.2, labels=labels, validation=0.1),
    )
    page = render(contents(store, *runs))
    assert "test/<wbr>pearson" in page
    assert "distance" in page
    assert "confusions" not in Reader(page).sections


def test_the_timeline_tells_kills_resumes_and_steps_done_again(store: Store) -> None:
    made = timeline_of([killed_and_resumed("s/0")], {"s/0": "lr=0.1"}, NOON)
    assert made is not None
    (lane,) = made.lanes
    assert [(bar.kind, bar.resumed) for bar in lane.bars] == [
        ("waiting", False),
        ("failed", False),
        ("waiting", False),
        ("completed", True),
    ]
    assert lane.bars[-1].start + lane.bars[-1].width == pytest.approx(100)
    (incident,) = made.incidents
    assert (incident.steps, incident.lost, incident.at) == ("0 to ≥ 7", "≥ 3", "12:00:20")
    assert incident.cause.startswith("ProcessDiedError: killed")
    assert [time for _, time in made.ticks][:2] == ["12:00:00", "12:00:10"]


def test_a_run_that_still_trains_reaches_to_now() -> None:
    running = attempt(1, 1, 20, ended_at=None, outcome="running")
    record = RunRecord(run_id="s/0", status="training", failure=None, attempts=(running,), evaluation=None)
    made = timeline_of([record], {}, NOON + timedelta(seconds=100))
    assert made is not None
    assert made.ended == NOON + timedelta(seconds=100)
    assert timeline_of([replace(record, attempts=())], {}, NOON) is None


def test_the_worst_errors_are_the_surest_wrong_ones_with_how_many_runs_err(store: Store) -> None:
    made = contents(store, *three_runs(store))
    first = made.results[0]
    confident = first.confidences_N.copy()
    confident[35] = 0.99
    errors = worst_errors(replace(first, confidences_N=confident), made.results)
    assert len(errors) == 10
    assert (errors[0].row_id, errors[0].how_bad, errors[0].num_wrong) == ("00035", "0.990", 2)
    assert errors[0].label != errors[0].predicted


def test_confusions_are_counted_over_the_seeds(store: Store) -> None:
    made = contents(store, *three_runs(store))
    assert made.comparison is not None
    winner = confusions(made.comparison)[0]
    assert (winner.name, winner.num_seeds, winner.label_names) == ("lr=0.1", 2, ("no", "yes"))
    assert winner.rows == (((30, 0.75), (10, 0.25)), ((10, 0.25), (30, 0.75)))
    assert winner.most == (("no", "yes", 10, 0.25), ("yes", "no", 10, 0.25))


def test_a_long_curve_is_thinned_and_keeps_its_end_and_its_mean() -> None:
    curve = tuple((step, float(step)) for step in range(1, 1001))
    short = thinned(curve)
    assert len(short) == MOST_POINTS
    assert short[-1][0] == 1000
    assert sum(value for _, value in short) / len(short) == pytest.approx(500.5)
    assert thinned(curve[:MOST_POINTS]) == curve[:MOST_POINTS]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.5, 0.52, [0.5, 0.505, 0.51, 0.515, 0.52]), (3.0, 3.0, [3.0])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)
