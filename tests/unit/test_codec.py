"""Specifications in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertpar.codec import fetch_spec, publish_spec
from bertpar.errors import CorruptError
from bertpar.store import Store
from tests.training.conftest import SPEC


def test_a_damaged_specification_is_refused_and_replaced_when_it_is_submitted_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    key = publish_spec(store, SPEC)
    file = store.fetch(key) / "spec.json"
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(CorruptError, match=key):
        fetch_spec(store, key)
    assert publish_spec(store, SPEC) == key
    assert fetch_spec(store, key) == SPEC
