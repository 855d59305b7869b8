"""What it takes to repeat a run, captured at its submission: source, commit and what differs from it, packages.

    provenance/DIGEST    commit, packages and Python in the manifest; `code.diff` against the commit

Hardware is captured where it is: every checkpoint's manifest names the machine that made it.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from bertpar.code import code_digest
from bertpar.spec import digest_json
from bertpar.store import Store

DIFF_FILE = "code.diff"
_PACKAGE = Path(__file__).parent
_GIT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a run was submitted with."""

    code: str
    """Digest of bertpar's whole source."""
    commit: str | None
    """Of the checkout that bertpar runs from; None where it is installed."""
    changed: bool
    """The source is not that of the commit: `code.diff` says how."""
    python: str
    packages: dict[str, str]
    """Versions of everything installed beside bertpar."""


def capture(store: Store) -> str:
    """Keep what this process would repeat its runs with, and return the key; the same again adds nothing."""
    commit, diff = _commit_and_diff()
    provenance = Provenance(
        code=code_digest(),
        commit=commit,
        changed=bool(diff),
        python=platform.python_version(),
        packages=dict(sorted((str(d.name), d.version) for d in distributions())),
    )
    meta: dict[str, Any] = asdict(provenance)
    key = f"provenance/{digest_json([meta, diff])}"
    if store.find(key) is None:
        store.publish(key, lambda folder: _write(folder / DIFF_FILE, diff), meta)
    return key


def read(store: Store, key: str) -> Provenance | None:
    """Return what was captured; None where it is gone."""
    bundle = store.find(key)
    return None if bundle is None else Provenance(**bundle.meta)


def _commit_and_diff() -> tuple[str | None, str]:
    """Return the commit of the checkout that this package lies in, and how its source differs from it."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, perhaps below somebody's checkout
        return None, ""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, ""
    diff = _git("diff", "--no-ext-diff", "--no-color", "HEAD", "--", ".") or ""
    for name in (_git("ls-files", "--others", "--exclude-standard", "--", ".") or "").splitlines():
        # with exit code 1: the files differ
        diff += _git("diff", "--no-ext-diff", "--no-color", "--no-index", "--", "/dev/null", name, allowed=(0, 1)) or ""
    return commit.strip(), diff


def _git(*arguments: str, allowed: tuple[int, ...] = (0,)) -> str | None:
    """Return what git prints; None where there is no git, no checkout, or no such thing in it."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode in allowed else None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
