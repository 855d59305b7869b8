"""The table of a sweep's runs as HTML, for notebooks: the columns of the terminal's tables. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from bertpar.observe import RunView, SweepView
from bertpar.pages import temporal_page
from bertpar.render import count_statuses, live_columns, live_rows, paused_lines, ranked_rows, ranking_columns
from bertpar.tables import Column

_GREEN = "#2e8b57"
_COLORS = {
    "completed": _GREEN,
    "reused": _GREEN,
    "failed": "#d9534f",
    "cancelled": "#c58f00",
    "training": "#2a8ca8",
}
"""Of states; in the middle of the scale, so that they can be read on a light and on a dark page."""

_TABLE = "color: inherit; border-collapse: collapse; font-variant-numeric: tabular-nums"


def sweep_table(view: SweepView) -> str:
    """Return the runs as a table: while the sweep runs how far they are, afterwards their ranking."""
    runs = live_rows(view) if view.sweep.status == "running" else ranked_rows(view)
    columns = live_columns(view) if view.sweep.status == "running" else ranking_columns(runs)
    head = "".join(_cell("th", column, escape(column.title)) for column in columns)
    body = "".join(f"<tr>{_row(run, columns)}</tr>" for run in runs)
    notes = "".join(f"<div>{escape(line)}</div>" for line in paused_lines(view))
    table = f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div>{_caption(view)}{table}{notes}</div>"


def _caption(view: SweepView) -> str:
    sweep = view.sweep
    name = escape(sweep.sweep_id)
    if sweep.options.temporal_ui:
        address = escape(temporal_page(sweep.options.temporal_ui, sweep.sweep_id))
        name = f'<a style="color: inherit" href="{address}" target="_blank" rel="noopener">{name}</a>'
    return f"<div>sweep {name}: {_colored(sweep.status)} ({escape(count_statuses(view.runs))})</div>"


def _row(run: RunView, columns: Sequence[Column[RunView]]) -> str:
    return "".join(_cell("td", column, _content(column.cell(run))) for column in columns)


def _cell(tag: str, column: Column[RunView], content: str) -> str:
    return f'<{tag} style="padding: 2px 8px; text-align: {"left" if column.left else "right"}">{content}</{tag}>'


def _content(cell: RenderableType) -> str:
    if isinstance(cell, ProgressBar):
        return f'<progress max="{cell.total:g}" value="{cell.completed:g}"></progress>'
    plain = cell.plain if isinstance(cell, Text) else str(cell)
    return _colored(plain)


def _colored(text: str) -> str:
    color = _COLORS.get(text)
    return f'<span style="color: {color}">{escape(text)}</span>' if color else escape(text)
