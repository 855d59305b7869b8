"""What a bundle is: files in a folder, and the manifest that commits them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertpar.spec import digest_json
from bertpar.store import direct, durable

MANIFEST = "manifest.json"

KINDS = ("checkpoint", "evaluation", "prediction", "snapshot", "spec", "tokenizer")

_STAGES = ("before_write", "written", "fsynced", "renamed", "committed")
"""Of a publication: nothing is there, files are written, files and manifest are on the disk, the bundle has its name,
its name is on the disk."""

POINTS = tuple(f"{kind}.{stage}" for kind in KINDS for stage in _STAGES)
"""The fault points that publishing reaches (see faults.py)."""

_KIND_BY_FOLDER = {"predictions": "prediction", "snapshots": "snapshot", "specs": "spec", "tokenizers": "tokenizer"}


FileDigest = tuple[int, str]
"""A file's size in bytes and sha256."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A committed bundle as its manifest describes it."""

    key: str
    files: dict[str, FileDigest]
    """By relative file name."""
    meta: dict[str, Any]

    @property
    def digest(self) -> str:
        return digest_json({"files": self.files, "meta": self.meta})

    @property
    def num_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    def manifest(self) -> bytes:
        """Return the one manifest that commits this bundle under its key."""
        content = {"key": self.key, "digest": self.digest, "files": self.files, "meta": self.meta}
        return json.dumps(content, indent=1, sort_keys=True).encode()


def read_manifest(key: str, raw: bytes) -> Bundle | None:
    """Return the bundle that `raw` commits under `key`; None if it is torn, changed by a bit, or another bundle's."""
    try:
        content = json.loads(raw)
        files = {name: (size, sha256) for name, (size, sha256) in content["files"].items()}
        bundle = Bundle(key=key, files=files, meta=content["meta"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return bundle if bundle.manifest() == raw else None


def kind_of(key: str) -> str:
    """Return what kind of bundle lies under `key`, one of KINDS; "bundle" for a key of no known form."""
    match key.split("/"):
        case ["runs", *_, "checkpoints", _, _]:
            return "checkpoint"
        case ["runs", *_, "evaluation", _]:
            return "evaluation"
        case [folder, *_]:
            return _KIND_BY_FOLDER.get(folder, "bundle")
    return "bundle"


def seal(folder: Path, known: Mapping[str, FileDigest]) -> dict[str, FileDigest]:
    """Have the disk hold every file below `folder`, and return sizes and digests; those `known` are not read again.

    Raises:
        OSError: a file has not the size that is known of it.
    """
    files: dict[str, FileDigest] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o644)  # some libraries write for their user alone, and a store is shared
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            files[name] = known.get(name) or (size, sha256_of(path))
            if files[name][0] != size:
                raise OSError(f"{name} has {size} bytes instead of {files[name][0]}")
        durable.sync(path)
    return files


def write_hashed(path: Path, *parts: bytes | memoryview) -> FileDigest:
    """Write a file of these parts, and return what `seal` need not read again: the digest is that of the memory."""
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for part in parts:
            digest.update(part)
            direct.write(file.fileno(), memoryview(part))
    return sum(map(len, parts)), digest.hexdigest()


def find_damage(folder: Path, bundle: Bundle, unread: Collection[str] = ()) -> str | None:
    """Return which file in `folder` differs from the manifest, and how; None if all are as committed but the `unread`.

    Raises:
        OSError: a file that is there cannot be read, which says nothing about its content.
    """
    for name, (size, sha256) in bundle.files.items():
        if name in unread:
            continue
        path = folder / name
        try:
            if (actual := path.stat().st_size) != size:
                return f"{name} has {actual} bytes instead of {size}"
            if sha256_of(path) != sha256:
                return f"{name} differs from its manifest"
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return f"{name} is missing"
    return None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
