"""Bundles appear whole or not at all, and a damaged one is noticed, set aside and replaced."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bertpar.errors import CorruptError, StoreError
from bertpar.store import MANIFEST, Bundle, Store
from bertpar.store.local import LocalPlace


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


# --- set aside --------------------------------------------------------------------------------------------


def damage(folder: Path) -> None:
    (folder / "x.txt").write_text("HELLO")


def test_a_damaged_bundle_is_set_aside_and_its_key_can_be_published_again(store: Store) -> None:
    digest = publish(store)
    damage(store.fetch("a/b"))
    notes: list[str] = []
    assert store.find_intact("a/b", notes.append) is None
    [note] = notes
    assert note.startswith(f"a/b in store {store.root} is damaged: x.txt differs from its manifest; it is set aside as")
    assert (Path(note.split()[-1]) / "x.txt").read_text() == "HELLO"
    assert note.split()[-1].startswith(f"{store.root}/damaged/a/b-")
    assert store.list("") == []
    assert publish(store) == digest


def test_publishing_replaces_what_is_damaged(store: Store) -> None:
    digest = publish(store)
    damage(store.fetch("a/b"))
    assert publish(store) == digest
    store.fetch("a/b", digest=digest)


def test_an_intact_bundle_is_not_set_aside_not_even_for_another_digest(store: Store) -> None:
    publish(store)
    notes: list[str] = []
    assert store.set_aside("a/b") is None
    assert store.fetch_intact("a/b", notes.append, digest="0000") is None
    assert ["not 0000" in note for note in notes] == [True]
    store.fetch("a/b")


def test_a_missing_bundle_is_noted_only_where_one_is_known_to_have_been(store: Store) -> None:
    publish(store, "a/c")
    notes: list[str] = []
    assert store.fetch_intact("a/b", notes.append) is None
    assert notes == []
    assert store.fetch_intact("a/b", notes.append, digest="0000") is None
    assert ["missing" in note for note in notes] == [True]


def test_a_file_that_cannot_be_read_is_not_damaged(store: Store) -> None:
    """A loop of links stands for a failing disk: an error of the system, for any user."""
    publish(store)
    file = store.fetch("a/b") / "x.txt"
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(StoreError, match="cannot read a/b"):
        store.find_intact("a/b")
    assert not (Path(store.root) / "damaged").exists()


def test_a_store_that_is_not_there_has_lost_nothing(store: Store) -> None:
    publish(store)
    shutil.rmtree(store.root)
    with pytest.raises(StoreError, match="Is it mounted"):
        store.fetch("a/b")
    Path(store.root).mkdir()
    with pytest.raises(StoreError, match="Is it mounted"):
        store.fetch("a/b")


# --- two at once ------------------------------------------------------------------------------------------


def once(action: Callable[[], object]) -> Callable[[], object]:
    """Return a function that does `action` when it is called for the first time."""
    actions = [action]
    return lambda: actions.pop()() if actions else None


def test_a_publisher_that_clears_a_leftover_does_not_delete_what_another_has_just_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced: the other one commits after this one has seen the leftover, before it clears it."""
    (Path(store.root) / "a" / "b").mkdir(parents=True)
    (Path(store.root) / "a" / "b" / "left").write_text("over")
    first: list[Bundle] = []
    commit_first = once(lambda: first.append(store.publish("a/b", lambda f: write(f / "x.txt", "first"))))
    find = LocalPlace.find
    num_looks = 0

    def find_then_be_overtaken(self: LocalPlace, key: str) -> Bundle | None:
        nonlocal num_looks
        found = find(self, key)
        num_looks += 1
        if num_looks == 2:  # the first look is before the attempt to commit
            commit_first()
        return found

    monkeypatch.setattr(LocalPlace, "find", find_then_be_overtaken)
    second = store.publish("a/b", lambda f: write(f / "x.txt", "second"))
    assert [second] == first
    assert (store.fetch("a/b", digest=second.digest) / "x.txt").read_text() == "first"
    assert [path.name for path in (Path(store.root) / "a").iterdir()] == ["b"]


def test_what_another_has_made_anew_is_not_set_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced: this one sees the damage, and is stopped until another has replaced the bundle."""
    publish(store)
    damage(store.fetch("a/b"))
    replace = once(lambda: publish(store))
    set_aside = LocalPlace.set_aside

    def be_overtaken_and_set_aside(self: LocalPlace, bundle: Bundle, key: str) -> bool:
        replace()
        return set_aside(self, bundle, key)

    monkeypatch.setattr(LocalPlace, "set_aside", be_overtaken_and_set_aside)
    assert store.find_intact("a/b", print) is None
    assert (store.fetch("a/b") / "x.txt").read_text() == "hello"


def test_files_that_nobody_will_read_are_not_checked_and_all_others_are(store: Store) -> None:
    def fill(folder: Path) -> None:
        write(folder / "small", "rows")
        write(folder / "large", "weights")

    store.publish("a/b", fill)
    write(store.fetch("a/b") / "large", "weighty")
    assert (store.fetch("a/b", unread=("large",)) / "small").read_text() == "rows"
    with pytest.raises(CorruptError, match="large differs from its manifest"):
        store.fetch("a/b", unread=("small",))
