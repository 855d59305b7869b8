"""Loopback ports for the local services."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
# Below the range from which Linux and macOS draw outgoing ports: what is free now stays free.
_CANDIDATES = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def is_serving(port: int) -> bool:
    """Say whether something accepts connections on this loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.5):
            return True
    except OSError:
        return False


def pick_port(preferred: int | None, taken: set[int]) -> int:
    """Return `preferred` if it is free, else another free port; never one of `taken`."""
    if preferred is not None and preferred not in taken and is_free(preferred):
        return preferred
    while True:
        port = random.choice(_CANDIDATES)
        if port not in taken and is_free(port):
            return port
