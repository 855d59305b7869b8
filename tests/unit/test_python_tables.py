"""A sweep's runs as a DataFrame, and as the table of a notebook."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bertpar.api.frame import results_frame
from bertpar.api.html import sweep_table
from bertpar.observe import RunView, SweepView
from tests.unit.test_narrow_terminals import busy
from tests.unit.test_pages import sweep_view


def with_swept(view: SweepView, *swept: dict[str, str]) -> SweepView:
    def changed(run: RunView, values: dict[str, str]) -> RunView:
        state = replace(run.state, run=replace(run.state.run, swept=values))
        return replace(run, state=state)

    return replace(view, runs=tuple(changed(run, values) for run, values in zip(view.runs, swept, strict=True)))


class Table(HTMLParser):
    """The texts of a table's cells, row by row; refuses what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_the_frame_has_a_row_a_run_with_what_was_swept_as_numbers_and_every_metric() -> None:
    frame = results_frame(with_swept(sweep_view(2), {"lr": "0.001", "model": "tiny"}, {"lr": "3e-5", "model": "7"}))
    assert list(frame.columns) == ["run_id", "lr", "model", "status", "step", "attempt", "val/accuracy"]
    assert list(frame.index) == [0, 1]
    assert list(frame["lr"]) == [0.001, 3e-5]
    assert list(frame["model"]) == ["tiny", "7"]
    assert list(frame["val/accuracy"]) == [0.5, 0.51]


def test_what_a_run_does_not_have_is_nan() -> None:
    view = sweep_view(2)
    young = replace(view.runs[1], state=replace(view.runs[1].state, metrics={}))
    frame = results_frame(replace(view, runs=(view.runs[0], young)))
    assert math.isnan(frame.loc[1, "val/accuracy"])


def test_a_sweep_without_runs_has_an_empty_frame_and_table() -> None:
    empty = sweep_view(0)
    assert list(results_frame(empty).columns) == ["run_id", "status", "step", "attempt"]
    assert len(Table(sweep_table(empty)).rows) == 1


def test_a_notebook_shows_how_far_running_runs_are() -> None:
    view = busy()
    running = replace(view, sweep=replace(view.sweep, status="running"))
    html = sweep_table(running)
    header, first, _ = Table(html).rows
    row = dict(zip(header, first, strict=True))
    assert (row["run"], row["state"], row["step"], row["loss"]) == ("lr=0", "training", "1056/12000", "0.6931")
    assert '<progress max="12000" value="1056">' in html


def test_a_notebook_shows_the_ranking_of_an_ended_sweep() -> None:
    header, *rows = Table(sweep_table(sweep_view(3))).rows
    place = header.index("run")
    assert header[0] == "rank"
    assert [(row[0], row[place]) for row in rows] == [("1", "lr=2"), ("2", "lr=1"), ("3", "lr=0")]


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b"])
def test_nothing_that_a_user_named_becomes_markup(evil: str) -> None:
    view = with_swept(sweep_view(1), {"sweep.note": evil})
    options = replace(view.sweep.options, temporal_ui=f"http://t/{evil}")
    html = sweep_table(replace(view, sweep=replace(view.sweep, sweep_id=evil, paused=evil, options=options)))
    assert evil not in html
    assert evil in "".join("".join(row) for row in Table(html).rows)
