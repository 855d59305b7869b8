"""Where examples come from: packaged files, the user's files, the Hugging Face hub."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from bertpar.data import packaged
from bertpar.data.examples import RawTable, is_missing
from bertpar.data.precheck import (
    check_path,
    file_of,
    missing_columns,
    unknown_packaged,
    used_columns,
)
from bertpar.data.textfiles import extension_of, read_text_table
from bertpar.errors import DataError
from bertpar.hub import check_revision
from bertpar.spec import SPLITS, DataSpec, Split

_HUB_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "val"),
    "test": ("test",),
}
_UNLABELLED = -1
_HUB_TIMEOUT_SECONDS = 10.0


def read_source(data: DataSpec) -> tuple[dict[Split, RawTable], list[str]]:
    """Return the splits that the source has (always `train`), used columns only, and notes for the user.

    Raises:
        DataError: a file, dataset or column is missing, or a file is malformed.
    """
    if data.source == "hub":
        return _read_hub(data)
    if data.source == "packaged":
        if data.path not in packaged.NAMES:
            raise DataError(unknown_packaged(data.path))
        return {"train": _read_file(data, packaged.packaged_file(data.path), f"data.path={data.path}")}, []
    if data.train_file is None:
        raise DataError("data.train_file is not set. Name a file: data.train_file=/path/to/train.csv")
    given: dict[Split, RawTable] = {}
    for split in SPLITS:
        if (name := file_of(data, split)) is not None:
            path = Path(name).expanduser()
            given[split] = _read_file(data, path, f"data.{split}_file={path}")
    return given, []


def _read_file(data: DataSpec, path: Path, where: str) -> RawTable:
    if problem := check_path(where, path):
        raise DataError(problem)
    used = tuple(used_columns(data).values())
    if extension_of(path) == ".parquet":
        return _read_parquet(data, path, where, used)
    table = read_text_table(path, where)
    if not table.rows and not table.columns:
        raise DataError(f"{where}: has no rows. Give a split with at least one example.")
    _require_columns(data, table.columns, where)
    columns = {column: [row.get(column) for row in table.rows] for column in used}
    return RawTable(where=where, columns=columns, lines=table.lines)


def _read_parquet(data: DataSpec, path: Path, where: str, used: tuple[str, ...]) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _require_columns(data, file.schema_arrow.names, where)
        table = file.read(columns=list(used))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: is not a readable Parquet file: {error}. Write it again.") from error
    return RawTable(where=where, columns={name: table.column(name).to_pylist() for name in used})


def _require_columns(data: DataSpec, there: list[str], where: str) -> None:
    if problems := missing_columns(data, there, where):
        raise DataError("\n".join(problems))


def _read_hub(data: DataSpec) -> tuple[dict[Split, RawTable], list[str]]:
    loaded = _load_hub(data)
    given: dict[Split, RawTable] = {}
    for split, names in _HUB_NAMES.items():
        name = next((name for name in names if name in loaded), None)
        if name is None:
            continue
        where = f"data.path={data.path}, split {name}"
        _require_columns(data, list(loaded[name].column_names), where)
        columns = {column: list(loaded[name][column]) for column in used_columns(data).values()}
        feature = loaded[name].features[data.label_column]
        columns[data.label_column] = _named_labels(columns[data.label_column], feature)
        given[split] = RawTable(where=where, columns=columns)
    if "train" not in given:
        raise DataError(f"data.path={data.path}: has no split 'train'; there are: {', '.join(loaded)}.")
    return _without_unlabelled_test(given, data)


def _load_hub(data: DataSpec) -> Any:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    if problem := check_revision("data.revision", data.revision):
        raise DataError(problem)
    assert data.path is not None
    try:
        if not Path(data.path).is_dir():
            # One question first: load_dataset goes on trying for half a minute when nobody answers.
            # In offline mode it uses its cache, at once.
            with suppress(OfflineModeIsEnabled):
                HfApi().dataset_info(data.path, revision=data.revision, timeout=_HUB_TIMEOUT_SECONDS)
        return datasets.load_dataset(data.path, name=data.config_name, revision=data.revision)
    except Exception as error:  # the hub's, the HTTP client's, the dataset builders' own classes
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"data.path={data.path} (data.config_name={data.config_name}, data.revision={data.revision}) "
            f"cannot be loaded: {reason}. Check the names and the network (HF_HUB_OFFLINE=1 uses what was "
            "downloaded before), or use files: data=files data.train_file=/path/to/train.csv"
        ) from error


def _named_labels(values: list[Any], feature: Any) -> list[Any]:
    """Return class names for the ids of a hub dataset's ClassLabel column; other columns as they are."""
    names = getattr(feature, "names", None)
    if names is None:
        return values
    return [None if value is None or value == _UNLABELLED else names[value] for value in values]


def _without_unlabelled_test(given: dict[Split, RawTable], data: DataSpec) -> tuple[dict[Split, RawTable], list[str]]:
    def is_unlabelled(value: Any) -> bool:
        return is_missing(value) or value in (_UNLABELLED, str(_UNLABELLED))

    test = given.get("test")
    if (
        test is None
        or test.num_rows == 0
        or not all(map(is_unlabelled, test.columns[data.label_column]))
        or any(map(is_unlabelled, given["train"].columns[data.label_column]))
    ):
        return given, []
    note = (
        f"{test.where}: all {test.num_rows} rows are unlabelled (-1), so it cannot be scored: the test "
        f"split is cut from the training rows instead (data.test_fraction={data.test_fraction})"
    )
    return {split: table for split, table in given.items() if split != "test"}, [note]
