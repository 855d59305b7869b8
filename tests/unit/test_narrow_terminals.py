"""Tables fit the terminal: what matters less gives way, what matters most is always there."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from bertpar.events import Progress
from bertpar.observe import RunView, SweepView
from bertpar.plain_log import PlainLog
from bertpar.render import final_report, live_table
from bertpar.states import Attempt
from tests.unit.test_pages import sweep_view

LONG = {"lr": "0.0005", "optim.weight_decay": "0.01", "trainer.batch_size": "16", "seed": "3"}


def busy(swept: dict[str, str] | None = None) -> SweepView:
    """Return a sweep of two trainings of which everything is known that a column shows."""
    view = sweep_view(2)
    progress = Progress(
        attempt=2,
        phase="training",
        step=1056,
        total_steps=12000,
        loss=0.6931,
        examples_per_second=1400.0,
        seconds_per_step=0.5,
        checkpoint_step=1050,
    )
    return replace(view, runs=tuple(_busy(run, progress, swept) for run in view.runs))


def _busy(run: RunView, progress: Progress, swept: dict[str, str] | None) -> RunView:
    ref = replace(run.state.run, swept=swept or run.state.run.swept)
    state = replace(run.state, run=ref, status="training", attempt=2, step=1056, total_steps=12000)
    return replace(run, state=state, status="training", progress=progress)


def lines(renderable: RenderableType, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width).print(renderable)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_wide_terminal_shows_every_column() -> None:
    header, *_ = lines(live_table(busy()), 140)
    titles = ["#", "run", "state", "step", "loss", "val/accuracy", "ckpt", "attempt", "ex/s", "compute", "left"]
    assert header.split() == titles


@pytest.mark.parametrize("swept", [None, LONG])
@pytest.mark.parametrize("width", [50, 80, 100])
def test_a_narrow_terminal_keeps_run_state_step_and_objective(width: int, swept: dict[str, str] | None) -> None:
    shown = lines(live_table(busy(swept)), width)
    assert all(title in shown[0].split() for title in ("run", "state", "step", "val/accuracy"))
    assert any("training" in line and "1056/12000" in line and "lr=" in line for line in shown)


def test_at_80_columns_only_what_matters_least_is_left_out() -> None:
    header, *_ = lines(live_table(busy()), 80)
    assert header.split() == ["#", "run", "state", "step", "loss", "val/accuracy", "ckpt", "attempt", "left"]


def test_the_ranking_has_the_index_and_at_80_columns_the_score_of_the_objective() -> None:
    view = sweep_view(12)
    scores = {"val/accuracy": 0.5, "test/accuracy": 0.75, "test/accuracy_low": 0.7, "test/accuracy_high": 0.8}
    others = {f"test/{name}": 0.5 for name in ("f1_macro", "mcc", "precision", "recall")}
    runs = tuple(replace(run, state=replace(run.state, metrics=scores | others)) for run in view.runs)
    ranking = final_report(replace(view, runs=runs), None)
    assert all(name in lines(ranking, 200)[1] for name in others)
    header, first, *_ = lines(ranking, 80)[1:]
    assert header.split()[:4] == ["rank", "#", "run", "val/accuracy"]
    assert "test/accuracy" in header
    assert "0.7500 [0.700, 0.800]" in first
    assert header.endswith("state")


def test_the_index_in_the_ranking_is_that_of_the_commands() -> None:
    best = lines(final_report(sweep_view(3), None), 200)[2]
    assert best.split()[:3] == ["1", "2", "lr=2"]


def test_a_run_that_waits_for_its_next_attempt_keeps_its_step() -> None:
    view = sweep_view(1)
    state = replace(view.runs[0].state, status="training", attempt=2, step=56, total_steps=0)
    waiting = replace(view.runs[0], state=state, status="waiting")
    row = lines(live_table(replace(view, runs=(waiting,))), 140)[1]
    assert row.split()[:4] == ["0", "lr=0", "waiting", "56"]


def test_the_log_says_from_which_step_an_attempt_goes_on() -> None:
    view = sweep_view(1)
    attempts = (Attempt(number=1, resumed_from_step=0), Attempt(number=2, resumed_from_step=56))
    log = PlainLog(beside_table=False)

    def said(number: int) -> list[str]:
        state = replace(view.runs[0].state, status="training", attempt=number)
        run = replace(view.runs[0], state=state, status="training", attempts=attempts[:number])
        return log.news(replace(view, runs=(run,)))

    assert said(1) == ["[0] lr=0: training, attempt 1"]
    assert said(2) == ["[0] lr=0: training, attempt 2, from step 56"]


def test_the_counts_below_the_table_do_not_look_like_a_row() -> None:
    assert lines(live_table(busy()), 140)[-1] == "runs: 2 training; compute time: 0:00"
