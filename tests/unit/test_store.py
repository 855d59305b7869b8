"""Bundles appear whole or not at all, and a damaged one is noticed."""

from pathlib import Path

import pytest

from bertpar.errors import CorruptError, StoreError
from bertpar.store import MANIFEST, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def publish(store: Store, key: str = "a/b", text: str = "hello") -> str:
    return store.publish(key, lambda folder: write(folder / "x.txt", text), {"n": 1}).digest


def write(path: Path, text: str) -> None:
    path.write_text(text)


def test_a_published_bundle_is_found_and_fetched(store: Store) -> None:
    digest = publish(store)
    bundle = store.find("a/b")
    assert bundle is not None
    assert (bundle.digest, bundle.num_bytes, bundle.meta) == (digest, 5, {"n": 1})
    assert (store.fetch("a/b", digest=digest) / "x.txt").read_text() == "hello"


def test_a_bundle_without_manifest_does_not_exist(store: Store) -> None:
    publish(store)
    (store.fetch("a/b") / MANIFEST).unlink()
    assert store.find("a/b") is None
    with pytest.raises(CorruptError, match="never committed"):
        store.fetch("a/b")


@pytest.mark.parametrize("damage", [b"hallo", b"hell", b"hello!", b""])
def test_a_changed_file_is_noticed(store: Store, damage: bytes) -> None:
    publish(store)
    (store.fetch("a/b") / "x.txt").write_bytes(damage)
    with pytest.raises(CorruptError, match=r"x\.txt"):
        store.fetch("a/b")


def test_a_torn_manifest_commits_nothing(store: Store) -> None:
    publish(store)
    manifest = store.fetch("a/b") / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:20])
    assert store.find("a/b") is None


def test_another_digest_is_refused(store: Store) -> None:
    publish(store)
    with pytest.raises(CorruptError, match="not 0000"):
        store.fetch("a/b", digest="0000")


def test_a_committed_bundle_is_never_replaced(store: Store) -> None:
    first = publish(store, text="first")
    assert publish(store, text="second") == first
    assert (store.fetch("a/b") / "x.txt").read_text() == "first"


def test_an_uncommitted_folder_makes_way(store: Store, tmp_path: Path) -> None:
    (tmp_path / "store" / "a" / "b").mkdir(parents=True)
    publish(store)
    assert (store.fetch("a/b") / "x.txt").read_text() == "hello"


def test_a_fill_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.publish("a/b", fail)
    assert list((tmp_path / "store" / "a").iterdir()) == []


def test_removing_twice_is_removing_once(store: Store) -> None:
    publish(store)
    store.remove("a/b")
    store.remove("a/b")
    assert store.find("a/b") is None


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"store\.root=.*file/store cannot be written"):
        Store(str(tmp_path / "file" / "store"), tmp_path / "cache").check_writable()


def test_a_remote_store_keeps_bundles_and_a_verified_local_copy(tmp_path: Path) -> None:
    store = Store("memory://bertpar-test", tmp_path / "cache")
    store.check_writable()
    digest = publish(store)
    elsewhere = Store("memory://bertpar-test", tmp_path / "other-cache")
    assert (elsewhere.fetch("a/b", digest=digest) / "x.txt").read_text() == "hello"
    assert (elsewhere.fetch("a/b", digest=digest) / "x.txt").read_text() == "hello"
    assert elsewhere.list("a") == ["a/b"]
    elsewhere.remove("a/b")
    assert store.find("a/b") is None


def test_listing_gives_committed_bundles_below_a_prefix(store: Store, tmp_path: Path) -> None:
    for key in ("a/x/1", "a/x/2", "a/y", "b/z"):
        publish(store, key)
    (store.fetch("a/x/1") / MANIFEST).unlink()
    (tmp_path / "store" / "a" / ".tmp-q").mkdir()
    (tmp_path / "store" / "a" / ".tmp-q" / MANIFEST).write_text("{}")
    assert store.list("a") == ["a/x/2", "a/y"]
    assert store.list("nothing") == []


def test_a_place_that_cannot_be_cleared_is_an_error_and_not_tried_for_ever(store: Store, tmp_path: Path) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "store" / "a" / "b").write_text("a file where a bundle should be")
    with pytest.raises(StoreError, match="cannot write a/b"):
        publish(store)
