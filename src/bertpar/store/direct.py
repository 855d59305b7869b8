"""Large files, written past the page cache where file system and alignment allow it.

Of checkpoints most are never read, and to find room for them in the cache takes several times as long as to write them.
"""

from __future__ import annotations

import fcntl
import os

BLOCK_BYTES = 4096
"""What goes past the page cache comes from, goes to, and has a multiple of so many bytes."""

_PIECE_BYTES = 2**23
"""Written at once at most: until it is done, nothing stops the process, and be it killed."""

_DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has none


def write(descriptor: int, data: memoryview) -> None:
    """Write all of `data` at the file's position; whether the disk holds it then is not said.

    What the way past the cache is refused for goes through it: less than a block, or memory or positions between two.
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
