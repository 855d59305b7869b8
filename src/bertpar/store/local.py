"""Bundles in a folder of a file system: each appears, goes, and is set aside by one rename."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR

from bertpar.faults import reach
from bertpar.store import durable
from bertpar.store.bundle import MANIFEST, Bundle, find_damage, kind_of, read_manifest

TEMPORARY = ".tmp-"
"""What the names of unfinished folders begin with."""

DAMAGED = "damaged"
"""The folder of what was set aside to be looked at."""

LOCKS = ".locks"
"""The folder of the files on which processes of a host agree."""

IsNeeded = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Debris:
    """A folder with files that belong to no bundle."""

    key: str
    """Where it lies below the root."""
    num_bytes: int
    changed_at: float
    """Seconds since 1970; of its newest file."""


def never() -> bool:
    """Say that a bundle is not needed."""
    return False


class LocalPlace:
    """Bundles below `root`. Errors are the file system's own, OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Write and remove a small file."""
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"")
        probe.unlink()

    def is_empty(self) -> bool:
        """Say whether no bundle at all can be here: the folder is missing or has nothing in it."""
        return not self.root.is_dir() or not any(self.root.iterdir())

    def path(self, key: str) -> Path:
        """Return the folder of a bundle, whether it is there or not."""
        return self.root / key

    def find(self, key: str) -> Bundle | None:
        """Return the bundle that is committed under `key`."""
        return _committed(self.path(key), key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield where below `prefix` a manifest lies."""
        for path in self.path(prefix).rglob(MANIFEST):
            yield path.parent.relative_to(self.root).as_posix()

    def commit(self, folder: Path, bundle: Bundle) -> Bundle:
        """Have the sealed `folder` become the bundle; return the one that is there if another publisher was first.

        What is in its place without being committed is cleared away. It is moved first and looked at then: between
        a look and a deletion another publisher could commit in the same place.
        """
        target = self.path(bundle.key)
        while not _move(folder, target):
            if (there := self.find(bundle.key)) is not None:
                return there
            aside = unfinished(target)
            with suppress(FileNotFoundError):  # another publisher moved it
                target.rename(aside)
                self._clear(aside, bundle.key)
        reach(f"{kind_of(bundle.key)}.renamed")
        durable.sync(target.parent)
        return bundle

    def verify(self, bundle: Bundle, unread: Collection[str] = ()) -> tuple[Path, str | None]:
        """Return the bundle's folder, and what is wrong with it, files left aside that nobody will read."""
        folder = self.path(bundle.key)
        return folder, find_damage(folder, bundle, unread)

    def remove(self, key: str, is_needed: IsNeeded = never) -> bool:
        """Delete the bundle, in one moment for readers, and say so; one that is needed, asked then, comes back."""
        aside = unfinished(self.path(key))
        try:
            self.path(key).rename(aside)
        except (FileNotFoundError, NotADirectoryError):
            return False
        is_back = is_needed() and (self.restore(key) or self.find(key) is not None)
        shutil.rmtree(aside, ignore_errors=True)
        return not is_back

    def restore(self, key: str) -> bool:
        """Bring back the bundle if `remove` has hidden it, whose process may be dead, and say so."""
        place = self.path(key)
        for aside in place.parent.glob(f"{TEMPORARY}{place.name}-*"):
            with suppress(FileNotFoundError):  # another process was first
                if _committed(aside, key) is not None and _move(aside, place):
                    return True
        return False

    def made_at(self, key: str) -> float:
        """Return when the bundle was committed, in seconds since 1970."""
        return (self.path(key) / MANIFEST).stat().st_mtime

    def debris(self) -> Iterator[Debris]:
        """Yield what no reader sees: unfinished folders, and below `damaged/` what was set aside."""
        damaged = self.root / DAMAGED
        for name, folders, files in os.walk(self.root):
            folder = Path(name)
            if folder.name.startswith(TEMPORARY) or (files and folder.is_relative_to(damaged)):
                yield _debris(folder, folder.relative_to(self.root).as_posix())
                folders.clear()
            elif MANIFEST in files or folder.name == LOCKS:
                folders.clear()

    def remove_debris(self, debris: Debris) -> bool:
        """Delete it, and say whether it was still there."""
        folder = self.root / debris.key
        was_there = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        return was_there

    def set_aside(self, bundle: Bundle, key: str) -> bool:
        """Move the bundle to `key` if it is damaged, and say so. It is moved first and looked at then, as above."""
        place, aside = self.path(bundle.key), self.path(key)
        durable.make_folder(aside.parent)
        try:
            place.rename(aside)
        except FileNotFoundError:  # another process was first
            return False
        moved = _committed(aside, bundle.key)
        if moved is not None and find_damage(aside, moved) is None and _move(aside, place):
            return False  # it has been made anew meanwhile
        durable.sync(place.parent)
        return True

    def _clear(self, aside: Path, key: str) -> None:
        """Delete what was moved aside; a committed bundle goes back, unless its place has another one by now."""
        if _committed(aside, key) is None or not _move(aside, self.path(key)):
            shutil.rmtree(aside)


def unfinished(target: Path) -> Path:
    """Return a new name beside `target`, for what is not yet or no longer to be seen by readers."""
    return target.with_name(f"{TEMPORARY}{target.name}-{uuid.uuid4().hex[:8]}")


def _debris(folder: Path, key: str) -> Debris:
    stats = [path.stat() for path in (folder, *folder.rglob("*"))]
    return Debris(
        key=key,
        num_bytes=sum(stat.st_size for stat in stats if not S_ISDIR(stat.st_mode)),
        changed_at=max(stat.st_mtime for stat in stats),
    )


def _committed(folder: Path, key: str) -> Bundle | None:
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return read_manifest(key, raw)


def _move(folder: Path, target: Path) -> bool:
    """Rename a folder if its new name is free, and say so."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
