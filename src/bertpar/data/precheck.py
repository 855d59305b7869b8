"""What can be said about a dataset before anything starts: standard library only, a few milliseconds."""

from __future__ import annotations

import os
from pathlib import Path

from bertpar.data import packaged
from bertpar.data.textfiles import EXTENSIONS, TEXT_EXTENSIONS, extension_of, read_text_table
from bertpar.errors import DataError
from bertpar.hub import check_revision
from bertpar.spec import SPLITS, DataSpec, Split


def check_files(data: DataSpec) -> list[str]:
    """Return one message per problem with where the data come from; none means that it is worth a start.

    Looks at names, permissions and each text file's header or first row. The rest is for `make_snapshot`.
    """
    if data.source == "packaged":
        return _check_packaged(data)
    if data.source == "hub":
        problem = check_revision("data.revision", data.revision)
        return [problem] if problem else []
    if data.train_file is None:
        return ["data.train_file is not set. Name a file: data.train_file=/path/to/train.csv"]
    problems = []
    for split in SPLITS:
        if (name := file_of(data, split)) is not None:
            problems += _check_file(data, split, Path(name).expanduser())
    return problems


def file_of(data: DataSpec, split: Split) -> str | None:
    """Return the file that the user gave for `split`, or None."""
    return {"train": data.train_file, "validation": data.validation_file, "test": data.test_file}[split]


def used_columns(data: DataSpec) -> dict[str, str]:
    """Return the columns that are read, by the configuration key that names each."""
    named = {
        "data.text_column": data.text_column,
        "data.text_pair_column": data.text_pair_column,
        "data.label_column": data.label_column,
        "data.id_column": data.id_column,
    }
    return {key: column for key, column in named.items() if column is not None}


def missing_columns(data: DataSpec, there: list[str], where: str) -> list[str]:
    """Return one message per column that is used but not among `there`."""
    return [
        f"{where}: has no column {column!r} ({key}={column}); there are: {', '.join(there) or 'none'}. "
        f"Choose one: {key}=<column>"
        for key, column in used_columns(data).items()
        if column not in there
    ]


def unknown_packaged(name: str | None) -> str:
    """Return the message for a packaged dataset that does not exist."""
    return f"data.path={name} is unknown for data.source=packaged; choose from: {', '.join(packaged.NAMES)}."


def check_path(where: str, path: Path) -> str | None:
    """Return why `path` cannot be read as a data file, or None. `where` is the key with its value."""
    if not path.exists():
        return f"{where}: there is no such file (looked for {path.absolute()}). Correct the path."
    if not path.is_file():
        return f"{where}: is not a file. Give one file per split."
    if not os.access(path, os.R_OK):
        return f"{where}: this user may not read it. Change its permissions."
    if not extension_of(path):
        return (
            f"{where}: unknown kind of file; choose from: {', '.join(EXTENSIONS)} "
            f"(and .gz after {', '.join(TEXT_EXTENSIONS)})."
        )
    return None


def _check_packaged(data: DataSpec) -> list[str]:
    if data.path not in packaged.NAMES:
        return [unknown_packaged(data.path)]
    path = packaged.packaged_file(data.path)
    return missing_columns(data, read_text_table(path, path.name, max_rows=0).columns, f"data.path={data.path}")


def _check_file(data: DataSpec, split: Split, path: Path) -> list[str]:
    where = f"data.{split}_file={path}"
    if problem := check_path(where, path):
        return [problem]
    if extension_of(path) not in TEXT_EXTENSIONS:
        return []
    try:
        table = read_text_table(path, where, max_rows=1)
    except DataError as error:
        return [str(error)]
    if not table.rows:
        return [f"{where}: has no rows. Give a file with at least one example."]
    return missing_columns(data, table.columns, where)
