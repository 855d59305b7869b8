"""Files and folders that survive a power cut: what these functions made is on the disk when they return."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

BLOCK_BYTES = 4096
"""What goes past the page cache comes from, goes to, and has a multiple of so many bytes."""

_PIECE_BYTES = 2**23
"""Written at once at most: until it is done, nothing stops the process, and be it killed."""

_DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has none


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write(path: Path, data: bytes) -> None:
    """Make a file with this content."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def write_on(descriptor: int, data: memoryview) -> None:
    """Write all of `data` at the file's position; `sync` has yet to be called for it.

    Whole blocks at block boundaries go past the page cache, where the file system can do that: of large files, most are
    never read, and to find room for them in the cache takes several times as long as to write them.
    """
    while data:
        num_whole = len(data) - len(data) % BLOCK_BYTES
        # the system may take less at once, in particular the last that fits on a disk
        written = _write_directly(descriptor, data[:num_whole]) or os.write(descriptor, data[:_PIECE_BYTES])
        data = data[written:]


def _write_directly(descriptor: int, blocks: memoryview) -> int:
    """Return how many bytes were written: none where the file system, or a place in file or memory, forbids it."""
    if not blocks:
        return 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT)
        return os.write(descriptor, blocks[:_PIECE_BYTES])
    except OSError:
        return 0  # what is wrong beside that, the way through the cache will tell
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def sync(path: Path) -> None:
    """Have the disk hold what a file contains, or which names a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
