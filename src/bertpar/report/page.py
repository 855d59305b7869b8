"""Turns the contents of a report into its page. No I/O but the template's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bertpar.compare.words import LEGEND, conclusion, lead_text, limits, metric_text, p_text
from bertpar.ledger import ledger_of
from bertpar.render import ledger_text
from bertpar.report import charts, examples
from bertpar.report.contents import Contents
from bertpar.report.timeline import timeline_of
from bertpar.states import RunState
from bertpar.workflows.planning import rank
from bertpar.workflows.records import run_name

TEMPLATE = "page.html.j2"
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that HTML does not allow even escaped, and halves of characters, which no file can hold."""


def render(contents: Contents) -> str:
    """Return the page as HTML that needs no other file: texts escaped, drawings inline, no script."""
    page = _environment().get_template(TEMPLATE).render(_facts(contents))
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", page)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bertpar.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "lead": lead_text,
        "metric": metric_text,
        "p": p_text,
        "breakable": _breakable,
        "ledger": _ledger,
    }
    return environment


def _facts(contents: Contents) -> dict[str, Any]:
    """Return what the template shows, by name."""
    states = [run.state for run in contents.view.runs]
    names = {state.run.run_id: run_name(state.run.swept, state.run.index) for state in states}
    return {
        "sweep": contents.view.sweep,
        "status": contents.status,
        "made_at": contents.made_at,
        "counts": Counter(run.status for run in contents.view.runs),
        "objective": contents.objective,
        "runs": rank(states),
        "names": names,
        "notes": contents.notes,
        "no_comparison": contents.no_comparison,
        "timeline": timeline_of(contents.records, names, contents.made_at),
        **_compared(contents),
    }


def _compared(contents: Contents) -> dict[str, Any]:
    comparison = contents.comparison
    series = charts.series_of(comparison) if comparison else {}
    objective = contents.objective
    facts: dict[str, Any] = {
        "comparison": comparison,
        "series": list(dict.fromkeys(series.values())),
        "validation_chart": charts.curves_chart(contents.curves, lambda c: c.validation, objective, series),
        "loss_chart": charts.curves_chart(contents.curves, lambda c: c.train_loss, "train/loss", series),
        "conclusion": None,
        "limits": [],
        "parallel": None,
        "rates": None,
        "confusions": [],
        "best": None,
        "errors": [],
    }
    if comparison is None:
        return facts
    best = examples.best_run(comparison)
    return facts | {
        "conclusion": conclusion(comparison),
        "limits": limits(comparison),
        "table_legend": LEGEND,
        "parallel": charts.parallel_chart(comparison),
        "rates": charts.learning_rate_chart(comparison),
        "confusions": examples.confusions(comparison),
        "best": best,
        "errors": examples.worst_errors(best, contents.results),
    }


def _ledger(states: Sequence[RunState]) -> str:
    return ledger_text(ledger_of(states))


def _breakable(name: str) -> Markup:
    """Return a name that a narrow column may break behind a comma or slash."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split("(?<=[,/])", name))
