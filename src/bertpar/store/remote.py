"""Bundles in an object store: the manifest is uploaded last, and files are read from a verified local copy."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertpar.store.bundle import MANIFEST, Bundle, find_damage, read_manifest
from bertpar.store.local import DAMAGED, Debris, IsNeeded, LocalPlace, never, unfinished

_HIDDEN = "hidden-manifest.json"
"""Where a bundle that is being removed keeps its manifest, until it is gone."""


class RemotePlace:
    """Bundles below an fsspec URL, with copies below the folder `cache`. All errors are OSError."""

    def __init__(self, url: str, cache: Path) -> None:
        self._url = url
        self._cache = LocalPlace(cache)

    def check_writable(self) -> None:
        """Write and remove a small file."""
        with self._errors_as_os_errors():
            fs, path = self._open(f".probe-{uuid.uuid4().hex}")
            fs.pipe_file(path, b"")
            fs.rm_file(path)

    def is_empty(self) -> bool:
        """Say that bundles can be here: a store that is away answers with an error."""
        return False

    def path(self, key: str) -> Path:
        """Return the folder of a bundle's copy, whether it is there or not."""
        return self._cache.path(key)

    def find(self, key: str) -> Bundle | None:
        """Return the bundle that is committed under `key`."""
        try:
            with self._errors_as_os_errors():
                fs, path = self._open(f"{key}/{MANIFEST}")
                raw = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return read_manifest(key, raw)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield where below `prefix` a manifest lies."""
        with self._errors_as_os_errors():
            fs, path = self._open(prefix)
            root = path.removesuffix(prefix)
            for found in fs.glob(f"{path}/**/{MANIFEST}"):
                yield found[found.index(root) + len(root) :].rpartition("/")[0]

    def commit(self, folder: Path, bundle: Bundle) -> Bundle:
        """Upload the sealed `folder`, its manifest last, and keep it as the local copy."""
        with self._errors_as_os_errors():
            for name in (*bundle.files, MANIFEST):
                fs, path = self._open(f"{bundle.key}/{name}")
                fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                fs.put_file(str(folder / name), path)
        self._cache.remove(bundle.key)
        return self._cache.commit(folder, bundle)

    def verify(self, bundle: Bundle, unread: Collection[str] = ()) -> tuple[Path, str | None]:
        """Return the folder of the bundle's copy, and what is wrong with it: a bad copy is fetched once more.

        Of a copy that is there the `unread` files are left aside; what is fetched is checked as a whole.
        """
        folder = self.path(bundle.key)
        if self._has_copy(bundle, unread):
            return folder, None
        staging = unfinished(folder)
        try:
            damage = self._download(bundle, staging)
            if damage is None and not self._has_copy(bundle):  # another process may read the one that it has just made
                self._cache.remove(bundle.key)
                self._cache.commit(staging, bundle)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return folder, damage

    def _has_copy(self, bundle: Bundle, unread: Collection[str] = ()) -> bool:
        copy = self._cache.find(bundle.key)
        if copy is None or copy.digest != bundle.digest:
            return False
        return find_damage(self.path(bundle.key), bundle, unread) is None

    def remove(self, key: str, is_needed: IsNeeded = never) -> bool:
        """Delete the bundle, its manifest first, and its copy, and say so; one that is needed, asked then, stays."""
        bundle = self.find(key)
        with self._errors_as_os_errors():
            fs, path = self._open(key)
            if bundle is not None:
                fs.pipe_file(f"{path}/{_HIDDEN}", bundle.manifest())
            if fs.exists(f"{path}/{MANIFEST}"):
                fs.rm_file(f"{path}/{MANIFEST}")
            if bundle is not None and is_needed():
                self.restore(key)
                return False
            if fs.exists(path):
                fs.rm(path, recursive=True)
        self._cache.remove(key)
        return bundle is not None

    def restore(self, key: str) -> bool:
        """Bring back the bundle if `remove` has hidden it, whose process may be dead, and say so."""
        with self._errors_as_os_errors():
            fs, path = self._open(key)
            try:
                raw = fs.cat_file(f"{path}/{_HIDDEN}")
            except (FileNotFoundError, NotADirectoryError):
                return False
            if read_manifest(key, raw) is None:
                return False
            fs.pipe_file(f"{path}/{MANIFEST}", raw)
            fs.rm_file(f"{path}/{_HIDDEN}")
        return True

    def made_at(self, key: str) -> float:
        """Return when the bundle was committed, in seconds since 1970."""
        with self._errors_as_os_errors():
            fs, path = self._open(f"{key}/{MANIFEST}")
            return float(fs.modified(path).timestamp())

    def debris(self) -> Iterator[Debris]:
        """Yield what no reader sees: uploads that were not committed, and below `damaged/` what was set aside."""
        with self._errors_as_os_errors():
            fs, root = self._open("")
            files = {path.removeprefix(root): info for path, info in fs.find(root, detail=True).items()}
            bundles = {key.rpartition("/")[0] for key in files if key.rpartition("/")[2] == MANIFEST}
            folders: dict[str, list[str]] = {}
            for key in files:
                folder = key.rpartition("/")[0]
                if folder and (folder.startswith(f"{DAMAGED}/") or bundles.isdisjoint(_and_above(folder))):
                    folders.setdefault(folder, []).append(key)
            for folder, keys in folders.items():
                yield Debris(
                    key=folder,
                    num_bytes=sum(files[key]["size"] for key in keys),
                    changed_at=max(float(fs.modified(f"{root}{key}").timestamp()) for key in keys),
                )

    def remove_debris(self, debris: Debris) -> bool:
        """Delete it, and say whether it was still there, and still belonged to no bundle."""
        if self.find(debris.key) is not None:
            return False
        with self._errors_as_os_errors():
            fs, path = self._open(debris.key)
            was_there = bool(fs.exists(path))
            if was_there:
                fs.rm(path, recursive=True)
        return was_there

    def set_aside(self, bundle: Bundle, key: str) -> bool:
        """Move the bundle to `key` if it is damaged, and say so. A transfer may fail too: so it is read once more."""
        _, damage = self.verify(bundle)
        if damage is None:
            return False
        with self._errors_as_os_errors():
            for name in (*bundle.files, MANIFEST):
                fs, path = self._open(f"{bundle.key}/{name}")
                _, aside = self._open(f"{key}/{name}")
                if fs.exists(path):
                    fs.makedirs(aside.rsplit("/", 1)[0], exist_ok=True)
                    fs.cp_file(path, aside)
        self.remove(bundle.key)
        return True

    def _download(self, bundle: Bundle, folder: Path) -> str | None:
        """Fetch the bundle's files and manifest, and return what is wrong with them."""
        for name in bundle.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with self._errors_as_os_errors():
                fs, path = self._open(f"{bundle.key}/{name}")
                try:
                    fs.get_file(path, str(folder / name))
                except FileNotFoundError:
                    return f"{name} is missing"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).write_bytes(bundle.manifest())
        return find_damage(folder, bundle)

    def _open(self, key: str) -> tuple[Any, str]:
        import fsspec

        fs, root = fsspec.core.url_to_fs(self._url)
        return fs, f"{root.rstrip('/')}/{key}"

    @contextmanager
    def _errors_as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # each file system has classes of its own, and so have missing drivers
            raise OSError(f"{type(error).__name__}: {error}") from error


def _and_above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
