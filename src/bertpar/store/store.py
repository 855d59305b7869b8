"""The store as the rest of bertpar sees it: publish, find, fetch, set aside, remove."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertpar.errors import BertparError, CorruptError, DiskFullError, StoreError
from bertpar.faults import reach
from bertpar.store import durable
from bertpar.store.bundle import MANIFEST, Bundle, FileDigest, kind_of, seal
from bertpar.store.local import DAMAGED, LOCKS, TEMPORARY, Debris, IsNeeded, LocalPlace, never, unfinished
from bertpar.store.remote import RemotePlace

_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)

Fill = Callable[[Path], Mapping[str, FileDigest] | None]
"""Writes files into a folder; returns those whose digests it knows, from `write_hashed`."""

Note = Callable[[str], None]
"""Told what a user should know."""


class Store:
    """Bundles under `root`. `cache` holds local copies where the root is not a local folder.

    Every method raises StoreError where the store cannot be read or written, and DiskFullError where it is full:
    that says nothing about the bundles, and goes by.
    """

    def __init__(self, root: str, cache: Path) -> None:
        self.root = root
        local = _as_local_path(root)
        self._place = LocalPlace(local) if local is not None else RemotePlace(root, cache)
        self._locks = (local or cache) / LOCKS

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            StoreError: `store.root` cannot be written, with the reason.
        """
        try:
            self._place.check_writable()
        except OSError as error:
            raise StoreError(
                f"store.root={self.root} cannot be written: {error}. "
                "Give a folder or URL that this user may write: store.root=/path/to/folder"
            ) from error

    def check_there(self) -> None:
        """Return if the store can hold what a client has put into it before any work began.

        Raises:
            StoreError: it is empty, as a file system that is not mounted, which has lost nothing and must get nothing.
        """
        with self.errors_told("cannot look"):
            if self._place.is_empty():
                raise StoreError(f"store.root={self.root} is empty or missing, and should hold a sweep. Is it mounted?")

    def find(self, key: str) -> Bundle | None:
        """Return the committed bundle at `key`, or None. Reads the manifest only: `fetch` verifies the files."""
        with self.errors_told(f"cannot read {key}"):
            return self._place.find(key)

    def find_intact(self, key: str, note: Note = _log.warning) -> Bundle | None:
        """Return the committed bundle at `key` if every file is as committed; else None, as `fetch_intact`."""
        return self.find(key) if self.fetch_intact(key, note) is not None else None

    def publish(self, key: str, fill: Fill, meta: dict[str, Any] | None = None) -> Bundle:
        """Let `fill` write files into an empty local folder, then make them the bundle `key`, atomically.

        An intact bundle that is committed under `key` stays as it is, and is returned: bundles are immutable. Whatever
        goes wrong, nothing of a failed publication stays.
        """
        kind = kind_of(key)
        folder = unfinished(self._place.path(key))
        with self.errors_told(f"cannot write {key}"):
            try:
                durable.make_folder(folder.parent)
                folder.mkdir()
                reach(f"{kind}.before_write")
                known = fill(folder)
                reach(f"{kind}.written")
                bundle = Bundle(key=key, files=seal(folder, known or {}), meta=meta or {})
                durable.write(folder / MANIFEST, bundle.manifest())
                reach(f"{kind}.fsynced")
                if (there := self.find_intact(key)) is not None:
                    return there
                bundle = self._place.commit(folder, bundle)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        reach(f"{kind}.committed")
        return bundle

    def list(self, prefix: str, kind: str | None = None) -> list[str]:
        """Return the keys of the committed bundles anywhere below `prefix`, or of those of one kind, sorted."""
        with self.errors_told(f"cannot list {prefix}"):
            keys = [key for key in self._place.keys(prefix) if kind is None or kind_of(key) == kind]
            return sorted(key for key in keys if self._place.find(key) is not None)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield where below `prefix` a manifest lies, without reading it: quick, for names of folders."""
        with self.errors_told(f"cannot list {prefix}"):
            yield from self._place.keys(prefix)

    def made_at(self, key: str) -> float:
        """Return when a committed bundle was, in seconds since 1970, by the store's own clock."""
        with self.errors_told(f"cannot look at {key}"):
            return self._place.made_at(key)

    def fetch(self, key: str, *, digest: str | None = None, unread: Collection[str] = ()) -> Path:
        """Return a local folder with the bundle's files, every one checked against its sha256.

        Not checked are those that the caller names because it will not read them: a reader of a kilobyte need not
        wait for the digest of hundreds of megabytes.

        Raises:
            CorruptError: no such bundle, another one than `digest`, or a file that differs from the manifest.
        """
        bundle = self.find(key)
        if bundle is None:
            self.check_there()
            raise CorruptError(f"{key} in store {self.root} is missing or was never committed")
        if digest is not None and bundle.digest != digest:
            raise CorruptError(f"{key} in store {self.root} has digest {bundle.digest}, not {digest}")
        with self.errors_told(f"cannot read {key}"):
            folder, damage = self._place.verify(bundle, unread)
        if damage is not None:
            raise CorruptError(f"{key} in store {self.root} is damaged: {damage}")
        return folder

    def fetch_intact(self, key: str, note: Note = _log.warning, *, digest: str | None = None) -> Path | None:
        """Return a local folder with the bundle's files, as `fetch`; None if there is no bundle that can be trusted.

        A damaged one is set aside, so that the key can be published again, and noted; so is, where a digest says
        that there once was a bundle, that it is missing.
        """
        if digest is None and self.find(key) is None:
            return None
        try:
            return self.fetch(key, digest=digest)
        except CorruptError as error:
            place = self.set_aside(key)
            note(f"{error}; it is set aside as {place}" if place else str(error))
            return None

    def set_aside(self, key: str) -> str | None:
        """Move a damaged bundle to below `damaged/`, where it can be looked at, and return its new place.

        It no longer exists for readers then, and the key can be published again. An intact bundle stays where it is,
        and so does what is not committed, which exists for nobody: then None is returned.
        """
        bundle = self.find(key)
        aside = f"{DAMAGED}/{key}-{uuid.uuid4().hex[:8]}"
        with self.errors_told(f"cannot move {key} to {aside}"):
            if bundle is not None and self._place.set_aside(bundle, aside):
                return f"{self.root.rstrip('/')}/{aside}"
        return None

    def remove(self, key: str, is_needed: IsNeeded = never) -> bool:
        """Delete the bundle, and say whether it was there and is gone. Deleting what is not there changes nothing.

        `is_needed` is asked while readers no longer find the bundle: if it is needed, it comes back. So whoever first
        marks a bundle as needed, and then finds it, keeps it.
        """
        with self.errors_told(f"cannot remove {key}"):
            return self._place.remove(key, is_needed)

    def restore(self, key: str) -> bool:
        """Bring back a bundle that a process hid in `remove`, and was killed; say whether there was one.

        Only of what is marked as needed: the process, should it live, would bring it back, too.
        """
        with self.errors_told(f"cannot bring back {key}"):
            return self.find(key) is None and self._place.restore(key)

    def debris(self) -> Sequence[Debris]:
        """Return what lies in the store and belongs to no bundle: unfinished, or damaged and set aside."""
        with self.errors_told("cannot look for leftovers"):
            return sorted(self._place.debris(), key=lambda debris: debris.key)

    def remove_debris(self, debris: Debris) -> bool:
        """Delete it, and say whether it was still there. Nobody may be publishing there."""
        with self.errors_told(f"cannot remove {debris.key}"):
            return self._place.remove_debris(debris)

    def remove_leftovers(self, prefix: str) -> None:
        """Delete what killed publishers left of the bundle `prefix` or below it. Nobody may be publishing there."""
        path = self._place.path(prefix)
        with self.errors_told(f"cannot clear {prefix}"):
            for folder in [*path.parent.glob(f"{TEMPORARY}{path.name}-*"), *path.rglob(f"{TEMPORARY}*")]:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def if_free(self, name: str) -> Iterator[bool]:
        """Take the lock of that name if no process of this host has it, and say so."""
        path = self.lock_path(name)
        with self.errors_told(f"cannot lock {name}"):
            file = path.open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def only_one(self, name: str) -> Iterator[None]:
        """Let one process of this host at a time in, for each name; the lock goes with its holder, however it ends."""
        path = self.lock_path(name)
        with self.errors_told(f"cannot lock {name}"):
            file = path.open("a")
        with file:
            with self.errors_told(f"cannot lock {name}"):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def lock_path(self, name: str) -> Path:
        """Return the file on which processes of this host agree who does what `name` stands for."""
        path = self._locks / name
        with self.errors_told(f"cannot lock {name}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def errors_told(self, what: str) -> Iterator[None]:
        """Turn what the file system says into StoreError or DiskFullError; what else fails inside stays as it is."""
        try:
            yield
        except BertparError:
            raise
        except Exception as error:
            told = f"store.root={self.root}: {what}: "
            if (reason := _why_full(error)) is not None:
                raise DiskFullError(f"{told}{reason}. Free some space there: it then goes on by itself") from error
            if isinstance(error, OSError):
                raise StoreError(f"{told}{error}") from error
            raise


def _as_local_path(root: str) -> Path | None:
    if root.startswith("file://"):
        return Path(root.removeprefix("file://"))
    return None if "://" in root else Path(root)


def _why_full(error: BaseException | None) -> str | None:
    """Return the system's words for a full disk or quota if that is what `error` comes from; else None.

    safetensors, tokenizers and shutil say it in their text alone, and torch in none of its own errors.
    """
    while error is not None:
        for number in _FULL:
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None
