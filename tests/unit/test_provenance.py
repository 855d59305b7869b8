"""What it takes to repeat a run is kept once, with how the source differs from its commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bertpar import provenance
from bertpar.code import code_digest
from bertpar.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout" / "bertpar"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    monkeypatch.setattr(provenance, "_PACKAGE", folder)
    return folder


def captured(store: Store) -> tuple[provenance.Provenance, str]:
    key = provenance.capture(store)
    found = provenance.read(store, key)
    assert found is not None
    return found, (store.fetch(key) / provenance.DIFF_FILE).read_text()


def test_the_commit_of_an_unchanged_checkout_is_kept_without_a_diff(store: Store, checkout: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    found, diff = captured(store)
    assert (found.commit, found.changed, diff) == (head.stdout.strip(), False, "")
    assert found.code == code_digest()
    assert found.packages["temporalio"]


def test_changed_and_new_files_are_in_the_diff(store: Store, checkout: Path) -> None:
    (checkout / "__init__.py").write_text("x = 2\n")
    (checkout / "new.py").write_text("y = 3\n")
    found, diff = captured(store)
    assert found.changed
    assert "+x = 2" in diff
    assert "+y = 3" in diff


def test_an_installed_package_below_somebody_elses_checkout_has_no_commit(store: Store, checkout: Path) -> None:
    subprocess.run(["git", "rm", "-q", "--cached", "__init__.py"], cwd=checkout, check=True)
    found, _ = captured(store)
    assert (found.commit, found.changed) == (None, False)


def test_the_same_surroundings_are_kept_once(store: Store, checkout: Path) -> None:
    assert provenance.capture(store) == provenance.capture(store)
    assert provenance.read(store, "provenance/nothing") is None
