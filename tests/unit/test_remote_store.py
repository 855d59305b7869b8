"""Bundles of an object store, and the copies of them that processes of a host share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertpar.errors import CorruptError, StoreError
from bertpar.store import Bundle, Store
from bertpar.store.remote import RemotePlace
from tests.unit.test_store import damage, once, publish, write


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    return Store(f"memory://{tmp_path.name}", tmp_path / "cache")


def change_remote(store: Store, name: str, data: bytes | None) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(f"{store.root}/{name}")
    if data is None:
        fs.rm_file(path)
    else:
        fs.pipe_file(path, data)


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


def test_a_damaged_copy_of_a_remote_bundle_is_fetched_again(remote: Store) -> None:
    publish(remote)
    damage(remote.fetch("a/b"))
    notes: list[str] = []
    assert remote.find_intact("a/b", notes.append) is not None
    assert notes == []
    assert (remote.fetch("a/b") / "x.txt").read_text() == "hello"


@pytest.mark.parametrize("was_damaged", [False, True])
def test_a_copy_that_another_process_has_made_meanwhile_and_may_read_is_kept(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_damaged: bool
) -> None:
    """Forced: this one sees that there is no good copy, and is stopped until another has made one."""
    publish(Store(remote.root, tmp_path / "other-cache"))
    if was_damaged:
        damage(remote.fetch("a/b"))
    others: list[int] = []
    fetch_first = once(lambda: others.append(remote.fetch("a/b").stat().st_ino))
    download = RemotePlace._download

    def be_overtaken_and_download(self: RemotePlace, bundle: Bundle, folder: Path) -> str | None:
        fetch_first()
        return download(self, bundle, folder)

    monkeypatch.setattr(RemotePlace, "_download", be_overtaken_and_download)
    assert [remote.fetch("a/b").stat().st_ino] == others
    assert [path.name for path in (tmp_path / "cache" / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("data", [b"HELLO", b"", None])
def test_a_damaged_remote_bundle_is_set_aside_and_replaced(remote: Store, tmp_path: Path, data: bytes | None) -> None:
    digest = publish(remote)
    change_remote(remote, "a/b/x.txt", data)
    elsewhere = Store(remote.root, tmp_path / "other-cache")
    with pytest.raises(CorruptError, match=r"x\.txt"):
        elsewhere.fetch("a/b")
    notes: list[str] = []
    assert elsewhere.find_intact("a/b", notes.append) is None
    assert f"set aside as {remote.root}/damaged/a/b-" in notes[0]
    assert elsewhere.list("") == []
    assert publish(elsewhere) == digest
    assert (elsewhere.fetch("a/b") / "x.txt").read_text() == "hello"


def test_an_upload_that_is_cut_short_commits_nothing(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    put_file = MemoryFileSystem.put_file
    num_left = 2

    def put_two_files(self: MemoryFileSystem, *arguments: object, **options: object) -> None:
        nonlocal num_left
        if not num_left:
            raise ConnectionError("gone")
        num_left -= 1
        put_file(self, *arguments, **options)

    def fill(folder: Path) -> None:
        write(folder / "one.txt", "1")
        write(folder / "two.txt", "2")

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_two_files)
    with pytest.raises(StoreError, match="gone"):
        remote.publish("a/b", fill)
    assert remote.find("a/b") is None
    num_left = 3
    remote.publish("a/b", fill)
    assert remote.list("a") == ["a/b"]


def test_a_remote_store_without_a_driver_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.root=nowhere://x"):
        Store("nowhere://x", tmp_path).find("a/b")
