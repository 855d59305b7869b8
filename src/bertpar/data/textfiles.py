"""Rows of CSV, TSV and JSON Lines files, by the standard library alone, with the line that each comes from.

CSV follows RFC 4180. TSV has no quoting: one line is one row, and quotes are ordinary characters (in many
public TSV files a stray quote would otherwise swallow the rows after it). JSON files hold one object a
line, or (.json) one array of objects. All are UTF-8, and may be compressed (.gz).
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from bertpar.errors import DataError

TEXT_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".json")
EXTENSIONS = (*TEXT_EXTENSIONS, ".parquet")


@dataclass
class TextTable:
    """The rows of one file. `columns` is the header, or (JSON) every name that a row has, in order."""

    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] | None = field(default_factory=list)
    """1-based line on which each row begins; None for a JSON array."""


def extension_of(path: Path) -> str:
    """Return the file's kind as its lower-case extension, without `.gz`; '' when it is not supported."""
    compressed = path.suffix.lower() == ".gz"
    extension = Path(path.stem).suffix.lower() if compressed else path.suffix.lower()
    return extension if extension in (TEXT_EXTENSIONS if compressed else EXTENSIONS) else ""


def read_text_table(path: Path, where: str, max_rows: int | None = None) -> TextTable:
    """Read the file's rows, or the first `max_rows`. `where` begins every message: the key and the path.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or a line is malformed (with its number).
    """
    extension = extension_of(path)
    assert extension in TEXT_EXTENSIONS
    try:
        with _open(path) as file:
            if extension in (".csv", ".tsv"):
                return _read_delimited(file, where, "," if extension == ".csv" else "\t", max_rows)
            if extension == ".json" and _starts_array(file):
                return _read_array(file, where, max_rows)
            return _read_json_lines(file, where, max_rows)
    except UnicodeDecodeError as error:
        line = _first_undecodable_line(path)
        raise DataError(f"{where}: line {line} is not UTF-8. Save the file as UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: is not a whole gzip file ({error}). Make or copy it again.") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}.") from error


def _open(path: Path) -> IO[str]:
    # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first column's name.
    if path.suffix.lower() == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _read_delimited(file: IO[str], where: str, delimiter: str, max_rows: int | None) -> TextTable:
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of more than 128 KB
    records = _records(file, where) if delimiter == "," else _tab_records(file)
    _, header = next(records, (1, []))
    if not header:
        raise DataError(f"{where}: is empty. Its first line must name the columns.")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{where}: the header names {repeated[0]!r} more than once. Rename one of the columns.")
    table = TextTable(columns=header)
    assert table.lines is not None
    for line, record in records:
        if max_rows is not None and len(table.rows) >= max_rows:
            break
        if len(record) != len(header):
            quoting = "quote fields that hold commas" if delimiter == "," else "tabs cannot be part of a field"
            raise DataError(
                f"{where}: line {line} has {_count(len(record), 'field')}, the header has {len(header)} "
                f"({', '.join(header)}). Correct the line ({quoting})."
            )
        table.rows.append(dict(zip(header, record, strict=True)))
        table.lines.append(line)
    return table


def _records(file: IO[str], where: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{where}: the row that begins on line {line} is malformed: {error}. "
                'Put fields with commas, quotes or line breaks in quotes, and double the quotes inside ("").'
            ) from error
        if record is None:
            return
        if record:
            yield line, record


def _tab_records(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    for line, text in _numbered_lines(file):
        yield line, text.split("\t")


def _numbered_lines(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(file, start=1):
        if stripped := text.rstrip("\r\n"):
            yield line, stripped


def _read_json_lines(file: IO[str], where: str, max_rows: int | None) -> TextTable:
    table = TextTable(columns=[])
    assert table.lines is not None
    for line, text in _numbered_lines(file):
        if not text.strip():
            continue
        if max_rows is not None and len(table.rows) >= max_rows:
            break
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: line {line} is not JSON: {error}. Each line must be one object.") from error
        _append_object(table, row, f"{where}: line {line}")
        table.lines.append(line)
    return table


def _starts_array(file: IO[str]) -> bool:
    start = file.read(4096).lstrip()
    file.seek(0)
    return start.startswith("[")


def _read_array(file: IO[str], where: str, max_rows: int | None) -> TextTable:
    table = TextTable(columns=[], lines=None)
    try:
        rows = json.load(file)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: line {error.lineno} is not JSON: {error.msg}.") from error
    for number, row in enumerate(rows[:max_rows], start=1):
        _append_object(table, row, f"{where}: row {number}")
    return table


def _append_object(table: TextTable, row: Any, place: str) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{place} is not an object but {json.dumps(row)[:60]}. Write {{column: value, ...}}.")
    table.columns.extend(name for name in row if name not in table.columns)
    table.rows.append(row)


def _first_undecodable_line(path: Path) -> int:
    raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return raw.count(b"\n", 0, error.start) + 1
    raise AssertionError("some line made the decoder fail")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
