"""What the Hugging Face hub asks of a configuration. Light: a client checks with it before anything starts."""

from __future__ import annotations

import re

_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_revision(key: str, revision: str | None) -> str | None:
    """Return what is wrong with a hub revision, or None: only a full commit names the same files for ever."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return None
    return (
        f"{key}={'null' if revision is None else revision} must be a commit (40 hexadecimal digits), "
        f"because branches and tags move. Copy it from the repository's history: {key}=<commit>"
    )
