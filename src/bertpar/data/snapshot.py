"""Snapshots: an immutable, content-addressed, tokenised copy of a dataset's splits, made once per store."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bertpar.data.examples import Examples, check_examples
from bertpar.data.reading import Example, SplitData, fetch_tokenizer, open_split, split_file
from bertpar.data.sources import read_source
from bertpar.data.splits import Part, label_names, make_splits
from bertpar.errors import DataError
from bertpar.events import SnapshotRef
from bertpar.model_folder import max_positions, model_digest
from bertpar.models import load_tokenizer, resolve_model
from bertpar.spec import DataSpec, ModelSpec, Split, digest_json
from bertpar.store import Bundle, Store, sha256_of

__all__ = ["SNAPSHOT_VERSION", "Example", "SplitData", "fetch_tokenizer", "make_snapshot", "open_split"]

SNAPSHOT_VERSION = 1
"""Part of every key: raised whenever the same source would give other splits or other files."""

_TOKENISE_BATCH = 1000
Emit = Callable[[str, Any], None]


def make_snapshot(data: DataSpec, model: ModelSpec, store: Store, emit: Emit = lambda kind, value: None) -> SnapshotRef:
    """Read, check, split and tokenise a dataset, publish it, and return where it is.

    A snapshot of the same content is found, not made again: neither by a later call nor by two at once. Unless it or
    its tokenizer is damaged: that is set aside, and made again to the same bytes. A source that has changed since
    gives another key.
    Emits a "note" for what the user should know: rows left out, truncated texts, an existing or damaged snapshot.

    Raises:
        DataError: the dataset cannot be used as it is; all problems of a file are told together.
        ModelError: the model or its tokenizer cannot be used.
        StoreError: the store cannot be read or written.
    """

    def note_damage(text: str) -> None:
        emit("note", f"{text}; it is made again")

    folder = resolve_model(model)
    tokenizer = load_tokenizer(folder)
    _check_max_length(data, folder, tokenizer)
    tokenizer_key = _publish_tokenizer(tokenizer, store, note_damage)
    tables, source_notes = read_source(data)
    for note in source_notes:
        emit("note", note)
    given = {split: check_examples(table, data) for split, table in tables.items()}
    key = f"snapshots/{_content_key(given, data, tokenizer_key)}"
    with store.only_one(key):
        if (bundle := store.find_intact(key, note_damage)) is not None:
            return _report(bundle, "is there already", folder, emit)
        store.remove_leftovers(key)
        parts, notes = make_splits(given, data)
        names = label_names(parts["train"]) if data.task == "classification" else ()
        encoded = {split: _encode(part, names, tokenizer, data) for split, part in parts.items()}
        notes += [
            f"{split}: {truncated} of {table.num_rows} are cut to data.max_length={data.max_length} tokens"
            for split, (table, truncated) in encoded.items()
            if truncated
        ]
        meta = {
            "version": SNAPSHOT_VERSION,
            "task": data.task,
            "label_names": list(names),
            "num_examples": {split: table.num_rows for split, (table, _) in encoded.items()},
            "tokenizer_key": tokenizer_key,
            "max_length": data.max_length,
            "notes": notes,
        }
        bundle = store.publish(key, lambda target: _write_splits(target, encoded), meta)
        return _report(bundle, "is made", folder, emit)


def _content_key(given: dict[Split, Examples], data: DataSpec, tokenizer_key: str) -> str:
    rules = {
        "version": SNAPSHOT_VERSION,
        "task": data.task,
        "max_length": data.max_length,
        "tokenizer": tokenizer_key,
        "split_seed": data.split_seed,
        "fractions": [data.validation_fraction, data.test_fraction],
        "sizes": [data.train_size, data.validation_size, data.test_size],
        "splits": {split: len(examples) for split, examples in given.items()},
    }
    digest = hashlib.sha256(digest_json(rules).encode())
    for split in sorted(given):
        examples = given[split]
        pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
        for row in zip(examples.row_ids, examples.texts, pairs, examples.labels, strict=True):
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _check_max_length(data: DataSpec, folder: Path, tokenizer: Any) -> None:
    limits = [limit for limit in (max_positions(folder), tokenizer.model_max_length) if limit]
    most = min(limits, default=data.max_length)
    least = tokenizer.num_special_tokens_to_add(pair=data.text_pair_column is not None) + 1
    if data.text_pair_column is not None:
        least += 1
    if not least <= data.max_length <= most:
        raise DataError(
            f"data.max_length={data.max_length} must be between {least} and {most}, the tokens that "
            f"the model in {folder} reads. Use data.max_length={max(least, min(data.max_length, most))}."
        )


def _publish_tokenizer(tokenizer: Any, store: Store, note: Callable[[str], None]) -> str:
    """Keep the tokenizer's files under the digest of their contents, and return the key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        digest = digest_json({path.name: sha256_of(path) for path in folder.iterdir()})
        key = f"tokenizers/{digest}"
        with store.only_one(key):
            if store.find_intact(key, note) is None:
                store.remove_leftovers(key)
                store.publish(key, lambda target: _copy_files(folder, target))
    return key


def _copy_files(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _encode(part: Part, names: tuple[str, ...], tokenizer: Any, data: DataSpec) -> tuple[Any, int]:
    """Return the part as an Arrow table of one chunk, and how many of its texts were truncated."""
    examples = part.examples
    texts = [examples.texts[i] for i in part.indices]
    pairs = None if examples.pairs is None else [examples.pairs[i] for i in part.indices]
    token_ids: list[list[int]] = []
    token_types: list[list[int]] = []
    num_truncated = 0
    for start in range(0, len(texts), _TOKENISE_BATCH):
        batch = slice(start, start + _TOKENISE_BATCH)
        encoded = tokenizer(
            texts[batch],
            None if pairs is None else pairs[batch],
            truncation="longest_first",
            max_length=data.max_length,
            padding=False,
            return_attention_mask=False,
        )
        token_ids += encoded["input_ids"]
        token_types += encoded.get("token_type_ids", [])
        num_truncated += sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    ids = {name: i for i, name in enumerate(names)}
    labels = [examples.labels[i] for i in part.indices]
    # large_*: 64-bit offsets, so that one chunk holds a split of any size.
    columns = {
        "input_ids": pa.array(token_ids, pa.large_list(pa.int32())),
        "label": pa.array([ids[str(label)] for label in labels], pa.int64())
        if names
        else pa.array(labels, pa.float64()),
        "text": pa.array(texts, pa.large_string()),
        "row_id": pa.array([examples.row_ids[i] for i in part.indices], pa.large_string()),
    }
    if pairs is not None:
        columns["text_pair"] = pa.array(pairs, pa.large_string())
        if token_types:
            columns["token_type_ids"] = pa.array(token_types, pa.large_list(pa.int8()))
    return pa.table(columns), num_truncated


def _write_splits(target: Path, encoded: dict[Split, tuple[Any, int]]) -> None:
    for split, (table, _) in encoded.items():
        with (
            pa.OSFile(str(target / split_file(split)), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as stream,
        ):
            stream.write_table(table)


def _report(bundle: Bundle, how: str, model: Path, emit: Emit) -> SnapshotRef:
    meta = bundle.meta
    for note in meta["notes"]:
        emit("note", note)
    counts = ", ".join(f"{count} {split}" for split, count in meta["num_examples"].items())
    emit("note", f"{bundle.key} {how}: {counts}")
    return SnapshotRef(
        key=bundle.key,
        digest=bundle.digest,
        task=meta["task"],
        label_names=tuple(meta["label_names"]),
        num_examples=dict(meta["num_examples"]),
        tokenizer_key=meta["tokenizer_key"],
        model_digest=model_digest(model),
    )
