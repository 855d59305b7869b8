"""The record of the local stack, its lock, and what is decided from them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from bertpar.paths import Home
from bertpar.stack import Stack, read
from bertpar.stack.record import (
    acquire_lock,
    is_locked,
    last_record,
    still_holds_lock,
    write_record,
)


def a_stack(token: str = "t", **changes: object) -> Stack:
    fields: dict[str, object] = {
        "state": "up",
        "token": token,
        "temporal_address": "127.0.0.1:20001",
        "temporal_ui": "http://127.0.0.1:20002",
        "mlflow_port": 20003,
        "mlflow_tracking_uri": "sqlite:////x/mlflow.db",
        "store": "/x/store",
        "slots": 2,
        "pids": {"supervisor": os.getpid()},
        "code": "c",
        "notes": ("n",),
    }
    return Stack(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_record_survives_the_file(home: Home) -> None:
    write_record(home, a_stack())
    assert last_record(home) == a_stack()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "up"}'])
def test_a_damaged_record_counts_as_none(home: Home, text: str) -> None:
    home.stack_file.write_text(text)
    assert last_record(home) is None


def test_fields_of_a_newer_version_are_ignored(home: Home) -> None:
    home.stack_file.write_text(json.dumps(asdict(a_stack()) | {"new_field": 1}))
    assert last_record(home) == a_stack()


def test_a_record_without_a_living_supervisor_is_not_current(home: Home) -> None:
    write_record(home, a_stack())
    home.lock_file.write_text("t")
    assert read(home) is None


def test_a_record_of_an_earlier_supervisor_is_not_current(home: Home) -> None:
    write_record(home, a_stack(token="before"))
    lock = acquire_lock(home, "now")
    assert lock is not None
    assert read(home) is None
    os.close(lock)


def test_the_record_of_the_lock_holder_is_current(home: Home) -> None:
    lock = acquire_lock(home, "now")
    assert lock is not None
    write_record(home, a_stack(token="now"))
    assert read(home) == a_stack(token="now")
    os.close(lock)


def test_only_one_can_hold_the_lock(home: Home) -> None:
    first = acquire_lock(home, "first")
    assert first is not None
    assert acquire_lock(home, "second", patience_seconds=0.05) is None
    assert home.lock_file.read_text() == "first"
    os.close(first)
    assert not is_locked(home)


def test_a_deleted_home_takes_the_lock_away(home: Home) -> None:
    lock = acquire_lock(home, "first")
    assert lock is not None
    assert still_holds_lock(home, lock)
    home.lock_file.unlink()
    assert not still_holds_lock(home, lock)
    home.lock_file.touch()
    assert not still_holds_lock(home, lock)
    os.close(lock)
