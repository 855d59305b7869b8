"""Reading a snapshot back: one split, verified once, memory-mapped, with cheap access to any example.

A split is one Arrow stream file with one record batch: each column is a plain array on disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bertpar.errors import CorruptError, SnapshotDamagedError
from bertpar.events import SnapshotRef
from bertpar.spec import Split
from bertpar.store import Store


class Example(TypedDict):
    """One example as a model reads it: no padding, special tokens included."""

    input_ids: list[int]
    token_type_ids: list[int] | None
    """0 for the first and 1 for the second text of a pair; None for single texts."""
    label: int | float
    """Class id (classification) or number (regression)."""


class SplitData:
    """One split of a snapshot. Nothing is copied but the examples asked for."""

    def __init__(self, path: Path) -> None:
        self._table: Any = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        tokens = self._table.column("input_ids").chunk(0)
        self._tokens: npt.NDArray[np.int32] = tokens.values.to_numpy(zero_copy_only=True)
        self._starts: npt.NDArray[np.int64] = tokens.offsets.to_numpy(zero_copy_only=True)
        self._token_types: npt.NDArray[np.int8] | None = None
        if "token_type_ids" in self._table.column_names:
            self._token_types = self._table.column("token_type_ids").chunk(0).values.to_numpy()
        self._labels: npt.NDArray[Any] = self._table.column("label").chunk(0).to_numpy()
        self.lengths: npt.NDArray[np.int64] = np.diff(self._starts)
        """Tokens per example."""

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def is_pair(self) -> bool:
        """Whether each example has two texts."""
        return "text_pair" in self._table.column_names

    def example(self, i: int) -> Example:
        """Return the tokens and label of example `i`, 0 <= i < len."""
        part = slice(self._starts[i], self._starts[i + 1])
        types = self._token_types
        return Example(
            input_ids=self._tokens[part].tolist(),
            token_type_ids=None if types is None else types[part].tolist(),
            label=self._labels[i].item(),
        )

    def text(self, i: int) -> str:
        """Return the (first) text of example `i` as the source has it."""
        return cast(str, self._table.column("text")[i].as_py())

    def text_pair(self, i: int) -> str | None:
        """Return the second text of example `i`; None for single texts."""
        return cast(str, self._table.column("text_pair")[i].as_py()) if self.is_pair else None

    def row_id(self, i: int) -> str:
        """Return the value of the id column, else the 1-based row number in the source."""
        return cast(str, self._table.column("row_id")[i].as_py())


def split_file(split: Split) -> str:
    """Return the name of a split's file within a snapshot."""
    return f"{split}.arrow"


def open_split(store: Store, snapshot: SnapshotRef, split: Split) -> SplitData:
    """Return one split, every file of the snapshot checked against its digest.

    Raises:
        SnapshotDamagedError: the snapshot is missing, is another one, or is damaged.
    """
    return SplitData(_fetch(store, snapshot.key, snapshot.digest) / split_file(split))


def fetch_tokenizer(store: Store, snapshot: SnapshotRef) -> Path:
    """Return a folder with the files of the tokenizer that made the snapshot, every one checked against its digest.

    Raises:
        SnapshotDamagedError: the tokenizer is missing or damaged.
    """
    return _fetch(store, snapshot.tokenizer_key)


def _fetch(store: Store, key: str, digest: str | None = None) -> Path:
    try:
        return store.fetch(key, digest=digest)
    except CorruptError as error:
        raise SnapshotDamagedError(f"{error}. It has to be made again, from the source that it was made of") from error
