"""Marks by which somebody keeps a checkpoint that its own run could do without: pins of users, and forks.

    pins/CHECKPOINT          a user wants it kept
    forks/CHECKPOINT/RUN     RUN began from it

Each is a bundle without files in the store, so that it counts on every machine. Who sets a mark looks for the
checkpoint afterwards, and who deletes a checkpoint hides it, looks for marks, and only then deletes it
(`Store.remove`): one of the two notices the other, whatever the order.
"""

from __future__ import annotations

from pathlib import Path

from bertpar.errors import NotFoundError
from bertpar.store import Store

_PINS = "pins"
_FORKS = "forks"


def pin(store: Store, checkpoint_key: str) -> None:
    """Keep a checkpoint until `unpin`. Pinning what is pinned changes nothing.

    Raises:
        NotFoundError: it does not exist (any more).
    """
    _hold(store, f"{_PINS}/{checkpoint_key}", checkpoint_key)


def unpin(store: Store, checkpoint_key: str) -> bool:
    """No longer keep a checkpoint, and say whether it was pinned."""
    return store.remove(f"{_PINS}/{checkpoint_key}")


def hold_for_fork(store: Store, checkpoint_key: str, run_id: str) -> None:
    """Keep a checkpoint for the run that begins from it. Saying so twice changes nothing.

    Raises:
        NotFoundError: it does not exist (any more).
    """
    _hold(store, f"{_FORKS}/{checkpoint_key}/{run_id}", checkpoint_key)


def is_pinned(store: Store, checkpoint_key: str) -> bool:
    """Say whether a user keeps the checkpoint."""
    return store.find(f"{_PINS}/{checkpoint_key}") is not None


def forks_of(store: Store, checkpoint_key: str) -> list[str]:
    """Return the runs that began from the checkpoint, sorted."""
    prefix = f"{_FORKS}/{checkpoint_key}"
    return [key.removeprefix(f"{prefix}/") for key in store.list(prefix)]


def is_held(store: Store, checkpoint_key: str) -> bool:
    """Say whether anybody keeps the checkpoint."""
    return is_pinned(store, checkpoint_key) or bool(forks_of(store, checkpoint_key))


def bring_back_held(store: Store, folder: str) -> None:
    """Bring back the held checkpoints below `folder` that a killed process had hidden, looking for their marks."""
    for marks in (_PINS, _FORKS):
        for mark in store.list(f"{marks}/{folder}"):
            if (bundle := store.find(mark)) is not None:
                store.restore(bundle.meta["checkpoint"])


def _hold(store: Store, mark: str, checkpoint_key: str) -> None:
    store.publish(mark, _no_files, {"checkpoint": checkpoint_key})
    if store.find(checkpoint_key) is None:
        store.remove(mark)
        raise NotFoundError(f"{checkpoint_key} in store {store.root} does not exist (any more)")


def _no_files(folder: Path) -> None:
    pass
