"""The identity of bertpar's own source and of the libraries it stands on, which decide what a run computes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bertpar.errors import CodeChangedError
from bertpar.events import Code
from bertpar.identity import differing_values

_PACKAGE = Path(__file__).parent

_JOB_CODE = (
    "batching.py",
    "cpu_modules.py",
    "data",
    "layout.py",
    "evaluation",
    "metric_names.py",
    "model_folder.py",
    "models.py",
    "packed_bert.py",
    "processor.py",
    "spec.py",
    "tiny_model.py",
    "torch_setup.py",
    "training",
)
"""What a job process computes with. How files are kept, processes started and runs tracked changes no result."""

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pytorch-lightning")


def code_digest() -> str:
    """Return the sha256 over every source file of this package, names included."""
    return _digest(_PACKAGE.rglob("*.py"))


def job_code_files() -> list[Path]:
    """Return the source files that decide what a job computes."""
    roots = [_PACKAGE / name for name in _JOB_CODE]
    return sorted(path for root in roots for path in (root.rglob("*.py") if root.is_dir() else [root]))


def job_code_digest() -> str:
    """Return the sha256 over the source files that decide what a job computes: a part of the run key."""
    return _digest(job_code_files())


@cache
def loaded_code() -> Code:
    """Return what this process, and what is forked from it, computes with: what was installed at the first call."""
    return Code(digest=job_code_digest(), versions=library_versions())


def check_code(wanted: Code | None) -> None:
    """Return if this process computes with what is wanted.

    Raises:
        CodeChangedError: it does not; with what differs.
    """
    if wanted is None or (loaded := loaded_code()) == wanted:
        return
    found = differing_values(loaded.versions, wanted.versions)
    if loaded.digest != wanted.digest:
        found.insert(0, f"bertpar's code {loaded.digest[:12]} instead of {wanted.digest[:12]}")
    raise CodeChangedError(
        f"this worker runs {'; '.join(found)} as when the sweep was submitted, and does not mix them. Put the old one "
        "back and start the worker again (on the local stack: bertpar down, bertpar up); or submit the sweep again, "
        "which computes with the new one what depends on it"
    )


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that compute, without the mark of a build (`+cpu`)."""
    return {name: found.partition("+")[0] for name in _LIBRARIES if (found := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
