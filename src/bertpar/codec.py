"""Frozen dataclasses to JSON and back, strictly typed; and the store's way of keeping them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from bertpar.errors import CorruptError
from bertpar.spec import SPEC_VERSION, RunSpec, digest_json
from bertpar.store import Store

T = TypeVar("T")

_SPEC_FILE = "spec.json"
_adapters: dict[type, TypeAdapter[Any]] = {}


def to_json(value: Any) -> str:
    """Return a dataclass as JSON text."""
    return json.dumps(asdict(value), sort_keys=True, ensure_ascii=False)


def from_json(cls: type[T], text: str | bytes) -> T:
    """Return the dataclass `cls` that `text` describes, every field checked against its type."""
    return adapter(cls).validate_json(text)


def adapter(cls: type[T]) -> TypeAdapter[T]:
    """Return what checks values against the types of `cls`; it is made once, which takes longer than using it."""
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def publish_spec(store: Store, spec: RunSpec) -> str:
    """Keep `spec` in the store and return its key; a damaged copy of it is set aside and replaced."""
    key = f"specs/{digest_json(asdict(spec))}"
    if store.find_intact(key) is None:
        store.publish(key, lambda folder: _write_spec(folder, spec))
    return key


def fetch_spec(store: Store, key: str) -> RunSpec:
    """Return the RunSpec kept under `key`.

    Raises:
        CorruptError: it is missing, damaged, or of another version than this code understands.
    """
    raw = (store.fetch(key) / _SPEC_FILE).read_bytes()
    if (version := json.loads(raw).get("version")) != SPEC_VERSION:
        raise CorruptError(f"{key} has spec version {version}; this bertpar understands version {SPEC_VERSION}")
    return from_json(RunSpec, raw)


def _write_spec(folder: Path, spec: RunSpec) -> None:
    (folder / _SPEC_FILE).write_text(to_json(spec), encoding="utf-8")
