"""The store: immutable bundles under a root that is a folder or any fsspec URL.

A *bundle* is a folder of files with a `manifest.json` that names each file's size and sha256. Its manifest is
its commit record: what has none, or does not match it, does not exist for a reader. On a local disk the whole
folder appears by one rename; elsewhere the manifest is uploaded last.

Layout: `specs/<digest>`, `tokenizers/<digest>`, `snapshots/<key>`,
`runs/<run_id>/checkpoints/attempt-<n>/step-<8 digits>`, `runs/<run_id>/evaluation/...`, `predictions/<id>/...`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertpar.errors import CorruptError, StoreError
from bertpar.spec import digest_json

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A committed bundle as its manifest describes it."""

    key: str
    files: dict[str, tuple[int, str]]
    """Size in bytes and sha256 by relative file name."""
    meta: dict[str, Any]

    @property
    def digest(self) -> str:
        return digest_json({"files": self.files, "meta": self.meta})

    @property
    def num_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


class Store:
    """Bundles under `root`. `cache` holds local copies where the root is not a local folder."""

    def __init__(self, root: str, cache: Path) -> None:
        self.root = root
        self._local_root = _as_local_path(root)
        self._cache = cache

    def check_writable(self) -> None:
        """Write and remove a small file.

        Raises:
            StoreError: `store.root` cannot be written, with the reason.
        """
        try:
            probe = f".probe-{uuid.uuid4().hex}"
            if self._local_root is not None:
                self._local_root.mkdir(parents=True, exist_ok=True)
                (self._local_root / probe).write_bytes(b"")
                (self._local_root / probe).unlink()
            else:
                fs, path = self._remote(probe)
                fs.pipe_file(path, b"")
                fs.rm_file(path)
        except Exception as error:  # any file system's own exception classes
            raise StoreError(
                f"store.root={self.root} cannot be written: {error}. "
                "Give a folder or URL that this user may write: store.root=/path/to/folder"
            ) from error

    def find(self, key: str) -> Bundle | None:
        """Return the committed bundle at `key`, or None. Reads the manifest only: `fetch` verifies the files."""
        try:
            if self._local_root is not None:
                raw = (self._local_root / key / MANIFEST).read_bytes()
            else:
                fs, path = self._remote(f"{key}/{MANIFEST}")
                raw = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"store.root={self.root}: cannot read {key}: {error}") from error
        try:
            manifest = json.loads(raw)
            files = {name: (size, sha256) for name, (size, sha256) in manifest["files"].items()}
            return Bundle(key=key, files=files, meta=manifest["meta"])
        except (ValueError, KeyError, TypeError):
            return None  # a torn manifest commits nothing

    def publish(self, key: str, fill: Callable[[Path], None], meta: dict[str, Any] | None = None) -> Bundle:
        """Let `fill` write files into an empty local folder, then make them the bundle `key`, atomically.

        A bundle that is already committed under `key` stays as it is: bundles are immutable.

        Raises:
            StoreError: the store cannot be written.
        """
        base = self._path(key).parent
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".tmp-{key.rsplit('/', 1)[-1]}-", dir=base))
            try:
                folder.chmod(0o755)
                fill(folder)
                bundle = Bundle(key=key, files=_seal(folder), meta=meta or {})
                _write_durably(folder / MANIFEST, _manifest_bytes(bundle))
                if (there := self.find(key)) is not None:
                    return there
                if self._local_root is None:
                    self._upload(folder, bundle)
                return self._commit(folder, bundle)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"store.root={self.root}: cannot write {key}: {error}") from error

    def list(self, prefix: str) -> list[str]:
        """Return the keys of the committed bundles anywhere below `prefix`, sorted."""
        if self._local_root is not None:
            found = (p.parent.relative_to(self._local_root).as_posix() for p in self._path(prefix).rglob(MANIFEST))
            return sorted(key for key in found if not key.rpartition("/")[2].startswith("."))
        fs, path = self._remote(prefix)
        root = path.removesuffix(prefix)
        return sorted(p[p.index(root) + len(root) :].rpartition("/")[0] for p in fs.glob(f"{path}/**/{MANIFEST}"))

    def fetch(self, key: str, *, digest: str | None = None) -> Path:
        """Return a local folder with the bundle's files, every one checked against its sha256.

        Raises:
            CorruptError: no such bundle, another one than `digest`, or a file that differs from the manifest.
        """
        bundle = self.find(key)
        if bundle is None:
            raise CorruptError(f"{key} in store {self.root} is missing or was never committed")
        if digest is not None and bundle.digest != digest:
            raise CorruptError(f"{key} in store {self.root} has digest {bundle.digest}, not {digest}")
        folder = self._path(key)
        if self._local_root is None and not _matches(folder, bundle):
            self._download(folder, bundle)
        for name, (size, sha256) in bundle.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size or sha256_of(path) != sha256:
                raise CorruptError(f"{key}/{name} in store {self.root} differs from its manifest")
        return folder

    def remove_leftovers(self, prefix: str) -> None:
        """Delete what killed publishers left below `prefix`. Nobody may be publishing there."""
        for folder in [*self._path(prefix).rglob(".tmp-*")]:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, key: str) -> None:
        """Delete the bundle, its commit record first. Deleting what is not there changes nothing."""
        if self._local_root is not None:
            (self._local_root / key / MANIFEST).unlink(missing_ok=True)
        else:
            fs, path = self._remote(key)
            if fs.exists(f"{path}/{MANIFEST}"):
                fs.rm_file(f"{path}/{MANIFEST}")
            if fs.exists(path):
                fs.rm(path, recursive=True)
        shutil.rmtree(self._path(key), ignore_errors=True)

    def lock_path(self, name: str) -> Path:
        """Return the file on which processes of this host agree who makes what `name` stands for."""
        path = (self._local_root or self._cache) / ".locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _path(self, key: str) -> Path:
        return (self._local_root if self._local_root is not None else self._cache) / key

    def _remote(self, key: str) -> tuple[Any, str]:
        import fsspec

        try:
            fs, root = fsspec.core.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise StoreError(f"store.root={self.root} cannot be opened: {error}") from error
        return fs, f"{root.rstrip('/')}/{key}"

    def _commit(self, folder: Path, bundle: Bundle) -> Bundle:
        target = self._path(bundle.key)
        while True:
            try:
                folder.rename(target)
                break
            except OSError:
                if not target.exists():
                    raise
            if self._local_root is not None and (there := self.find(bundle.key)) is not None:
                return there  # somebody else's rename came first
            with suppress(FileNotFoundError):  # whatever else is wrong with it must be told, not tried for ever
                shutil.rmtree(target)  # uncommitted or, in a cache, outdated
        _fsync_folder(target.parent)
        return bundle

    def _upload(self, folder: Path, bundle: Bundle) -> None:
        for name in (*bundle.files, MANIFEST):
            fs, path = self._remote(f"{bundle.key}/{name}")
            fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            fs.put_file(str(folder / name), path)

    def _download(self, folder: Path, bundle: Bundle) -> None:
        staging = folder.with_name(f".tmp-{folder.name}-{uuid.uuid4().hex[:8]}")
        for name in bundle.files:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            fs, path = self._remote(f"{bundle.key}/{name}")
            fs.get_file(path, str(staging / name))
        _write_durably(staging / MANIFEST, _manifest_bytes(bundle))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            staging.rename(folder)
        except OSError:  # another process of this host was first
            shutil.rmtree(staging, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_local_path(root: str) -> Path | None:
    if root.startswith("file://"):
        return Path(root.removeprefix("file://"))
    return None if "://" in root else Path(root)


def _seal(folder: Path) -> dict[str, tuple[int, str]]:
    """Make every file below `folder` durable, and return sizes and digests."""
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(0o644)  # some libraries write for their user alone, and a store is shared
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = (path.stat().st_size, sha256_of(path))
    return files


def _manifest_bytes(bundle: Bundle) -> bytes:
    return json.dumps({"files": bundle.files, "meta": bundle.meta}, indent=1, sort_keys=True).encode()


def _matches(folder: Path, bundle: Bundle) -> bool:
    try:
        return (folder / MANIFEST).read_bytes() == _manifest_bytes(bundle)
    except OSError:
        return False


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
