"""Tables that fit a terminal: where it is too narrow, whole columns are left out, the least important first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table

Row = TypeVar("Row")

_WIDEST = 10_000
_WRAP_FROM = 32
"""Characters of a cell that may wrap, from which on it wraps before a column is left out."""


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Row]):
    """One column: its title, and what it shows of a row."""

    title: str
    cell: Callable[[Row], RenderableType]
    left: bool = False
    """Aligned to the left, as texts are; numbers to the right."""
    wraps: bool = False
    leaves: int | None = None
    """Its place in the order in which columns are left out; None for never."""


@dataclass(frozen=True, kw_only=True)
class FittingTable(Generic[Row]):
    """Renders `rows` in as many of the `columns` as the terminal has room for."""

    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    header_style: str = "dim"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(self.columns)
        unbounded = options.update(width=_WIDEST)
        optional = sorted((c for c in columns if c.leaves is not None), key=lambda c: c.leaves or 0)
        for column in optional:
            if console.measure(self._table(columns, _WRAP_FROM), options=unbounded).maximum <= options.max_width:
                break
            columns.remove(column)
        yield self._table(columns, None)

    def _table(self, columns: Sequence[Column[Row]], wrap_from: int | None) -> Table:
        table = Table(box=None, pad_edge=False, header_style=self.header_style)
        for column in columns:
            table.add_column(
                column.title,
                justify="left" if column.left else "right",
                no_wrap=not column.wraps,
                overflow="fold",
                max_width=wrap_from if column.wraps else None,
            )
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in columns))
        return table
