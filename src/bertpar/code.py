"""The identity of bertpar's own source, which decides what a run computes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def code_digest() -> str:
    """Return the sha256 over every source file of this package, names included."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
