"""Garbage collection: what of a store nobody needs, why, and its deletion.

Only what was there at the start is taken, and right before its deletion it is asked once more, of Temporal and of the
store, whether somebody needs it. A run that begins meanwhile has a name that was not listed. What it shares with
others, a snapshot or a tokenizer, it makes again if that was deleted between the question and the deletion.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from bertpar.catalogue import (
    BEST,
    LAST,
    RESUMABLE,
    CatalogueEntry,
    RunCatalogue,
    Uses,
    note_collected,
    read_catalogue,
    read_uses,
    runs_in,
)
from bertpar.checkpoints import checkpoints_folder
from bertpar.events import CheckpointRef
from bertpar.holds import bring_back_held, is_held
from bertpar.store import Debris, Store
from bertpar.usage import Usage

DAY_SECONDS = 86_400.0

SHARED = "what runs share"

Ask = Callable[[Sequence[str]], Awaitable[Usage]]
"""Says what is running now, for sure of these sweeps."""


@dataclass(frozen=True, kw_only=True)
class CollectionOptions:
    """What a user allows beside the obvious."""

    abandoned: bool = False
    """Also give up runs that ended without a result, and could be gone on with."""
    unknown: bool = False
    """Take sweeps that Temporal does not know for ended."""
    prediction_days: float = 7.0
    """Keep inputs and outputs of predictions for so long: their outputs have been handed to the user."""
    grace_seconds: float = DAY_SECONDS
    """Leave what runs share, and nobody has referred to yet, alone for so long: somebody may be about to."""


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """One thing that nobody needs."""

    kind: Literal["checkpoint", "snapshot", "tokenizer", "prediction", "damaged", "leftover"]
    key: str
    num_bytes: int
    why: str
    """Why it may go."""
    run_id: str | None = None
    """Whose it is; None for what runs share."""
    checkpoint: CheckpointRef | None = None
    debris: Debris | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar gc --json`."""
        return {name: getattr(self, name) for name in ("kind", "key", "num_bytes", "why", "run_id")}


@dataclass(frozen=True, kw_only=True)
class Spared:
    """Something that would be garbage, or that a user could give up."""

    what: str
    why: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is, or was, to be deleted, and what is spared."""

    garbage: tuple[Garbage, ...] = ()
    spared: tuple[Spared, ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(item.num_bytes for item in self.garbage)


@dataclass
class _Plan:
    garbage: list[Garbage] = field(default_factory=list)
    spared: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, items: Sequence[Garbage], busy: str | None, what: str) -> None:
        """Take the items, unless somebody is busy with them."""
        if busy is None:
            self.garbage += items
        elif items:
            self.spare(what, busy, sum(item.num_bytes for item in items))

    def spare(self, what: str, why: str, num_bytes: int) -> None:
        self.spared[what, why] = self.spared.get((what, why), 0) + num_bytes

    def done(self) -> Collection:
        spared = [Spared(what=what, why=why, num_bytes=size) for (what, why), size in self.spared.items()]
        return Collection(garbage=tuple(self.garbage), spared=tuple(spared))


def plan_collection(store: Store, usage: Usage, options: CollectionOptions, now: float) -> Collection:
    """Return what of the store nobody needs at `now` (seconds since 1970), and what is spared although it looks so."""
    plan = _Plan()
    uses = _wanted_uses(store, usage, options)
    catalogues = [read_catalogue(store, run_id, uses) for run_id in runs_in(store)]
    for run in catalogues:
        busy = usage.why_busy(run.run_id, take_unknown=options.unknown)
        plan.add(garbage_of_run(run, abandoned=options.abandoned), busy, run.run_id)
        unfinished = 0 if run.is_finished else sum(e.checkpoint.num_bytes for e in run.entries if e.kept_because)
        if busy is None and unfinished and not options.abandoned:
            plan.spare(run.run_id, "not finished, and can be gone on with (--abandoned gives it up)", unfinished)
    going = {item.key for item in plan.garbage}
    needed = {e.snapshot_digest for run in catalogues for e in run.entries if e.checkpoint.key not in going}
    shared = list(_unused_data(store, needed, now - options.grace_seconds))
    plan.add(shared, why_shared_is_busy(usage), SHARED)
    plan.garbage += _old_predictions(store, usage, now - options.prediction_days * DAY_SECONDS)
    for item in _garbage_of_nobody(store, now - options.grace_seconds):
        busy = _why_debris_is_busy(item, usage, options)
        plan.add([item], busy, item.run_id or SHARED)
    return plan.done()


async def collect(store: Store, planned: Collection, ask: Ask, options: CollectionOptions) -> Collection:
    """Delete what was planned, as far as it is still garbage; return what was, and what was spared after all."""
    plan = _Plan(spared={(s.what, s.why): s.num_bytes for s in planned.spared})
    for run_id, group in itertools.groupby(planned.garbage, key=lambda item: item.run_id):
        items = list(group)
        if run_id is None:
            await _collect_shared(store, items, ask, plan)
        else:
            await _collect_of_run(store, run_id, items, ask, options, plan)
    return plan.done()


def garbage_of_run(run: RunCatalogue, *, abandoned: bool) -> list[Garbage]:
    """Return the checkpoints of a run that nothing keeps; pure. `abandoned`: nobody wants to go on with the run."""
    if run.is_finished:
        why = "the run is finished, and it is not the best"
    else:
        why = "the run is given up (--abandoned)" if abandoned else "not needed to go on with the run"
    given_up = {BEST, LAST, RESUMABLE} if abandoned and not run.is_finished else set()
    return [_garbage(entry, why) for entry in run.entries if given_up.issuperset(entry.kept_because)]


def why_shared_is_busy(usage: Usage) -> str | None:
    """Return why nothing that runs share may be deleted; None if it may."""
    live = usage.live_sweeps
    more = f" and {len(live) - 1} more" if len(live) > 1 else ""
    return f"sweep {live[0]}{more} is running, and may be about to use it" if live else None


def _wanted_uses(store: Store, usage: Usage, options: CollectionOptions) -> Uses:
    """Return who needs whose checkpoints, without the runs that are given up."""
    uses = read_uses(store)
    if not options.abandoned:
        return uses
    return uses.only(lambda run_id: usage.why_busy(run_id, take_unknown=options.unknown) is not None)


# --- what there is ------------------------------------------------------------------------------------------


def _garbage(entry: CatalogueEntry, why: str) -> Garbage:
    checkpoint = entry.checkpoint
    return Garbage(
        kind="checkpoint",
        key=checkpoint.key,
        num_bytes=checkpoint.num_bytes,
        why=why,
        run_id=entry.run_id,
        checkpoint=checkpoint,
    )


def _unused_data(store: Store, needed_digests: set[str | None], before: float) -> Iterator[Garbage]:
    """Yield the snapshots that no checkpoint was trained on, and the tokenizers that no other snapshot needs."""
    tokenizers = set()
    for key in store.list("snapshots"):
        if (bundle := store.find(key)) is None:
            continue
        if bundle.digest in needed_digests or store.made_at(key) > before:
            tokenizers.add(bundle.meta.get("tokenizer_key"))
        else:
            why = "no checkpoint in the store was trained on it"
            yield Garbage(kind="snapshot", key=key, num_bytes=bundle.num_bytes, why=why)
    for key in store.list("tokenizers"):
        bundle = store.find(key)
        if bundle is not None and key not in tokenizers and store.made_at(key) <= before:
            yield Garbage(kind="tokenizer", key=key, num_bytes=bundle.num_bytes, why="no snapshot needs it")


def _old_predictions(store: Store, usage: Usage, before: float) -> Iterator[Garbage]:
    for key in store.list("predictions"):
        bundle = store.find(key)
        if bundle is None or key.split("/")[1] in usage.predictions or store.made_at(key) > before:
            continue
        why = "its prediction has ended, and was handed over"
        yield Garbage(kind="prediction", key=key, num_bytes=bundle.num_bytes, why=why)


def _garbage_of_nobody(store: Store, before: float) -> Iterator[Garbage]:
    """Yield what was set aside as damaged, and leftovers of killed publishers; of what runs share only old ones."""
    for debris in store.debris():
        parts = debris.key.split("/")
        is_damaged = parts[0] == "damaged"
        parts = parts[1:] if is_damaged else parts
        run_id = "/".join(parts[1:3]) if parts[0] == "runs" and len(parts) > 3 else None
        if run_id is None and not is_damaged and debris.changed_at > before:
            continue
        yield Garbage(
            kind="damaged" if is_damaged else "leftover",
            key=debris.key,
            num_bytes=debris.num_bytes,
            why="was set aside as damaged" if is_damaged else "was never completed",
            run_id=run_id,
            debris=debris,
        )


def _why_debris_is_busy(item: Garbage, usage: Usage, options: CollectionOptions) -> str | None:
    if item.run_id is None:
        return why_shared_is_busy(usage)
    return usage.why_busy(item.run_id, take_unknown=options.unknown)


# --- deleting it --------------------------------------------------------------------------------------------


async def _collect_of_run(
    store: Store, run_id: str, items: Sequence[Garbage], ask: Ask, options: CollectionOptions, plan: _Plan
) -> None:
    users = read_uses(store).going_on.get(run_id, ())
    usage = await ask(sorted({run.partition("/")[0] for run in (run_id, *users)}))
    busy = usage.why_busy(run_id, take_unknown=options.unknown)
    with store.if_free(f"runs/{run_id}") as free:
        busy = busy or (None if free else "a process of this machine works on it")
        if busy is not None:
            plan.add(items, busy, run_id)
            return
        bring_back_held(store, checkpoints_folder(run_id))
        run = read_catalogue(store, run_id, _wanted_uses(store, usage, options))
        still = {item.key for item in garbage_of_run(run, abandoned=options.abandoned)}
        going = [item.checkpoint for item in items if item.checkpoint is not None and item.key in still]
        if going:
            note_collected(store, run_id, going)
        for item in items:
            if item.checkpoint is None or item.key in still:
                _delete(store, item, plan)
            else:
                plan.spare(item.key, "needed by now", item.num_bytes)


async def _collect_shared(store: Store, items: Sequence[Garbage], ask: Ask, plan: _Plan) -> None:
    for item in items:
        usage = await ask([])
        in_use = item.kind == "prediction" and item.key.split("/")[1] in usage.predictions
        busy = "its prediction is running" if in_use else None
        if item.kind != "prediction":
            busy = why_shared_is_busy(usage)
        if busy is not None:
            plan.add([item], busy, SHARED)
        else:
            _delete(store, item, plan)


def _delete(store: Store, item: Garbage, plan: _Plan) -> None:
    if item.debris is not None:
        if store.remove_debris(item.debris):
            plan.garbage.append(item)
    elif store.remove(item.key, partial(is_held, store, item.key)):
        plan.garbage.append(item)
    elif store.find(item.key) is not None:
        plan.spare(item.key, "pinned or forked from by now", item.num_bytes)
