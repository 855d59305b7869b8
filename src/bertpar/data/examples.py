"""From raw columns to checked examples. Every row is looked at; all problems of a file are told together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertpar.errors import DataError
from bertpar.spec import DataSpec, Task

_NUM_ROWS_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """The used columns of one split as the source has them."""

    where: str
    """The key and its value, for messages: `data.train_file=/data/train.csv`."""
    columns: dict[str, list[Any]]
    lines: list[int] | None = None
    """1-based line on which each row begins, for text files."""

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The checked rows of one split; all lists have the same length."""

    where: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | list[float]
    """Class names (classification) or numbers (regression)."""
    row_ids: list[str]
    """The id column, else the 1-based number of the row in its source."""
    lines: list[int] | None = None
    keys: list[str] = field(default_factory=list)
    """What makes two examples the same: the text (and its pair) without regard to case and white space."""

    def __len__(self) -> int:
        return len(self.texts)

    def describe(self, indices: Iterable[int]) -> str:
        """Return the rows' numbers and lines for a message: the first ten and how many more."""
        return describe_rows(list(indices), self.lines)


def describe_rows(indices: Sequence[int], lines: list[int] | None) -> str:
    """Return 'row 3 (line 4)' or 'rows 3 (line 4), 5 (line 6) and 7 more' for 0-based `indices`."""
    named = [f"{i + 1}" + (f" (line {lines[i]})" if lines else "") for i in indices[:_NUM_ROWS_NAMED]]
    more = f" and {len(indices) - len(named)} more" if len(indices) > len(named) else ""
    return ("row " if len(indices) == 1 else "rows ") + ", ".join(named) + more


def check_examples(table: RawTable, data: DataSpec) -> Examples:
    """Return the table's rows as examples, each text non-empty and each label usable.

    Raises:
        DataError: no rows; texts or labels that are missing or of the wrong kind; duplicate ids.
    """
    if table.num_rows == 0:
        raise DataError(f"{table.where}: has no rows. Give a split with at least one example.")
    problems: list[str] = []
    texts = _check_texts(table, "data.text_column", data.text_column, problems)
    pairs = None
    if data.text_pair_column is not None:
        pairs = _check_texts(table, "data.text_pair_column", data.text_pair_column, problems)
    labels = _check_labels(table, data.label_column, data.task, problems)
    row_ids = _check_ids(table, data.id_column, problems)
    if problems:
        raise DataError("\n".join(problems))
    keys = [_normalised(text) for text in texts]
    if pairs is not None:
        keys = [f"{key}\0{_normalised(pair)}" for key, pair in zip(keys, pairs, strict=True)]
    return Examples(
        where=table.where,
        texts=texts,
        pairs=pairs,
        labels=labels,
        row_ids=row_ids,
        lines=table.lines,
        keys=keys,
    )


def is_missing(value: Any) -> bool:
    """Say whether a cell holds nothing: None, NaN or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def class_name(value: Any) -> str | None:
    """Return a cell as the name of a class: 1, 1.0 and '1' are the same; None when it cannot be a name."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value).strip()
    return None


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold()


def _check_texts(table: RawTable, key: str, column: str, problems: list[str]) -> list[str]:
    values = table.columns[column]
    empty = [i for i, value in enumerate(values) if is_missing(value)]
    others = [i for i, value in enumerate(values) if not isinstance(value, str) and not is_missing(value)]
    broken = [i for i, value in enumerate(values) if isinstance(value, str) and not _is_unicode(value)]
    where = f"{table.where}: column {column!r} ({key}={column})"
    if empty:
        problems.append(
            f"{where} is empty or NaN in {describe_rows(empty, table.lines)}. Fill in or remove these rows."
        )
    if others:
        problems.append(
            f"{where} must be text, but is not in {describe_rows(others, table.lines)}; the first is "
            f"{values[others[0]]!r}. Choose another column, or write the values as text."
        )
    if broken:
        problems.append(f"{where} is not valid Unicode in {describe_rows(broken, table.lines)}. Correct these rows.")
    return values


def _check_labels(table: RawTable, column: str, task: Task, problems: list[str]) -> list[str] | list[float]:
    values = table.columns[column]
    rows = f"{table.where}: column {column!r} (data.label_column={column})"
    missing = [i for i, value in enumerate(values) if is_missing(value)]
    if missing:
        problems.append(f"{rows} has no label in {describe_rows(missing, table.lines)}. Label or remove these rows.")
    present = [i for i, value in enumerate(values) if not is_missing(value)]
    if task == "regression":
        numbers = [_number(value) for value in values]
        wrong = [i for i in present if numbers[i] is None]
        if wrong:
            problems.append(
                f"{rows} must hold finite numbers for data.task=regression, but does not in "
                f"{describe_rows(wrong, table.lines)}; the first is {values[wrong[0]]!r}. "
                "Correct these rows, or use data.task=classification."
            )
        return [number for number in numbers if number is not None]
    names = [class_name(value) for value in values]
    wrong = [i for i in present if names[i] is None]
    if wrong:
        problems.append(
            f"{rows} must hold strings or whole numbers, but does not in "
            f"{describe_rows(wrong, table.lines)}; the first is {values[wrong[0]]!r}. "
            "Choose another column, or one label per example."
        )
    elif (fraction := _first_fraction([names[i] for i in present])) is not None:
        problems.append(
            f"{rows} holds numbers with fractions, such as {fraction}, not classes. "
            "For numbers: data.task=regression. For classes: names or whole numbers."
        )
    return [name for name in names if name is not None]


def _check_ids(table: RawTable, column: str | None, problems: list[str]) -> list[str]:
    if column is None:
        return [str(number) for number in range(1, table.num_rows + 1)]
    where = f"{table.where}: column {column!r} (data.id_column={column})"
    values = table.columns[column]
    ids = [class_name(value) or "" for value in values]
    missing = [i for i, value in enumerate(values) if is_missing(value) or not ids[i]]
    if missing:
        problems.append(
            f"{where} has no id in {describe_rows(missing, table.lines)}. "
            "Fill them in, or number the rows instead: data.id_column=null"
        )
    counts = Counter(ids)
    repeated = [i for i, value in enumerate(ids) if value and counts[value] > 1]
    if repeated:
        problems.append(
            f"{where} repeats ids, such as {ids[repeated[0]]!r}, in {describe_rows(repeated, table.lines)}. "
            "Make them unique, or number the rows instead: data.id_column=null"
        )
    return ids


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _first_fraction(names: list[str | None]) -> str | None:
    """Return the first label with a fraction where all labels are numbers; None where they name classes."""
    numbers = [_number(name) for name in names]
    if any(number is None for number in numbers):
        return None
    return next((name for name, n in zip(names, numbers, strict=True) if n is not None and not n.is_integer()), None)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express
        return False
    return True
