"""The checkpoints of runs, as the store has them, and why each is kept. Temporal, which may forget, is not asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bertpar.checkpoints import checkpoints_folder, reference_to
from bertpar.errors import NotFoundError
from bertpar.events import CheckpointRef
from bertpar.holds import forks_of, is_pinned
from bertpar.results import lineage, unreused_runs_with_origin
from bertpar.spec import CheckpointSpec, digest_json
from bertpar.store import Bundle, Store
from bertpar.training.selection import Validation, best_validation, checkpoints_to_prune

BEST, LAST, RESUMABLE, PINNED, FORKED, NEEDED = "best", "last", "resumable", "pinned", "forked from", "needed"
"""Reasons to keep a checkpoint. Of a finished run the last one is no reason: nothing goes on from there."""


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One checkpoint of a run."""

    run_id: str
    checkpoint: CheckpointRef
    snapshot_digest: str | None
    """Of the data that it was trained on."""
    kept_because: tuple[str, ...]
    """Empty where nothing keeps it: `bertpar gc` deletes it once the sweep has ended."""

    def as_json(self) -> dict[str, Any]:
        """Return the public form of `bertpar checkpoints --json`."""
        return {"run_id": self.run_id, **vars(self.checkpoint), "kept_because": list(self.kept_because)}


@dataclass(frozen=True, kw_only=True)
class RunCatalogue:
    """What the store has of one run."""

    run_id: str
    is_finished: bool
    """Trained and evaluated."""
    entries: tuple[CatalogueEntry, ...]
    """By step and attempt."""
    collected_steps: tuple[int, ...]
    """Steps whose checkpoints `bertpar gc` has deleted."""

    @property
    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, once each."""
        return list(dict.fromkeys(entry.checkpoint.step for entry in self.entries))

    def find(self, step: int | None) -> CheckpointRef:
        """Return the newest attempt's checkpoint of a step, or the best one.

        Raises:
            NotFoundError: there is none; the message lists those that exist.
        """
        wanted = "best checkpoint" if step is None else f"checkpoint of step {step}"
        for entry in reversed(self.entries):
            if (BEST in entry.kept_because) if step is None else (entry.checkpoint.step == step):
                return entry.checkpoint
        gone = " any more: bertpar gc has deleted it" if step in self.collected_steps else ""
        steps = ", ".join(map(str, self.steps)) or "none"
        raise NotFoundError(f"{self.run_id} has no {wanted}{gone}; there are: {steps}")


def sweeps_in(store: Store) -> list[str]:
    """Return the sweeps of which the store has anything, by name."""
    return sorted({run_id.partition("/")[0] for run_id in runs_in(store)})


def runs_in(store: Store, sweep_id: str | None = None) -> list[str]:
    """Return the runs of which the store has anything, of one sweep or of all, in their order."""
    prefix = "runs" if sweep_id is None else f"runs/{sweep_id}"
    found = {tuple(key.split("/")[1:3]) for key in store.keys(prefix)}
    runs = sorted((sweep, int(index)) for sweep, index in found if index.isdecimal())
    return [f"{sweep}/{index}" for sweep, index in runs]


@dataclass(frozen=True, kw_only=True)
class Uses:
    """Who needs whose checkpoints, across the runs of a store."""

    chosen: Mapping[str, Sequence[str]]
    """By checkpoint: the runs that chose it as their best (not always their own)."""
    going_on: Mapping[str, Sequence[str]]
    """By run: the unfinished runs that go on from its checkpoints."""

    def only(self, is_wanted: Callable[[str], bool]) -> Uses:
        """Return the uses without those of unfinished runs that nobody wants any more."""
        going_on = {run: [user for user in users if is_wanted(user)] for run, users in self.going_on.items()}
        return Uses(chosen=self.chosen, going_on=going_on)


def read_uses(store: Store) -> Uses:
    """Return who needs whose checkpoints now."""
    chosen: dict[str, list[str]] = {}
    finished = set()
    for key in store.list("runs", "evaluation"):
        if (bundle := store.find(key)) is not None:
            chosen.setdefault(bundle.meta["checkpoint"], []).append(bundle.meta["run_id"])
            finished.add(bundle.meta["run_id"])
    going_on: dict[str, list[str]] = {}
    for run_id in unreused_runs_with_origin(store):
        if run_id not in finished:
            for origin in lineage(store, run_id)[1:]:
                going_on.setdefault(origin, []).append(run_id)
    return Uses(chosen=chosen, going_on=going_on)


def read_catalogue(store: Store, run_id: str, uses: Uses) -> RunCatalogue:
    """Return what the store has of a run by itself; see `read_whole_catalogue`."""
    keys = store.list(checkpoints_folder(run_id))
    bundles = [bundle for key in keys if (bundle := store.find(key)) is not None]
    is_finished = bool(store.list(f"runs/{run_id}/evaluation"))
    kept = keepers(store, run_id, bundles, uses, is_finished=is_finished)
    entries = [
        CatalogueEntry(
            run_id=run_id,
            checkpoint=reference_to(bundle),
            snapshot_digest=bundle.meta.get("run", {}).get("snapshot"),
            kept_because=tuple(kept[bundle.key]),
        )
        for bundle in bundles
    ]
    return RunCatalogue(
        run_id=run_id,
        is_finished=is_finished,
        entries=tuple(sorted(entries, key=lambda entry: (entry.checkpoint.step, entry.checkpoint.attempt))),
        collected_steps=collected_steps(store, run_id),
    )


def read_whole_catalogue(store: Store, run_id: str, uses: Uses) -> RunCatalogue:
    """Return what the store has of a run, with the checkpoints of equal runs that it uses as its own."""
    runs = [read_catalogue(store, run, uses) for run in lineage(store, run_id)]
    entries = sorted(
        (entry for run in runs for entry in run.entries), key=lambda e: (e.checkpoint.step, e.checkpoint.attempt)
    )
    there = {entry.checkpoint.step for entry in entries}
    return RunCatalogue(
        run_id=run_id,
        is_finished=any(run.is_finished for run in runs),
        entries=tuple(entries),
        collected_steps=tuple(sorted({step for run in runs for step in run.collected_steps} - there)),
    )


def find_and_hold(store: Store, run_id: str, step: int | None, hold: Callable[[CheckpointRef], None]) -> CheckpointRef:
    """Find a run's checkpoint of a step, or its best one, and have `hold` keep it.

    While it is being found, a run in training may replace it by a better one: then that is found.

    Raises:
        NotFoundError: there is none (any more); the message lists those that exist.
    """
    while True:
        found = read_whole_catalogue(store, run_id, read_uses(store)).find(step)
        with suppress(NotFoundError):
            hold(found)
            return found


def keepers(
    store: Store, run_id: str, bundles: Sequence[Bundle], uses: Uses, *, is_finished: bool
) -> dict[str, list[str]]:
    """Return why each checkpoint of a run is kept, by key. A new reason to keep one belongs here, and in holds.py."""
    reasons: dict[str, list[str]] = {bundle.key: [] for bundle in bundles}
    if not is_finished:
        reasons.update(needed_to_go_on(bundles))
    for key, found in reasons.items():
        found += [BEST if user == run_id else f"{BEST} of {user}" for user in uses.chosen.get(key, ())]
        found += [f"{NEEDED} by {user}" for user in uses.going_on.get(run_id, ())]
        found += [PINNED] * is_pinned(store, key)
        found += [f"{FORKED} by {fork}" for fork in forks_of(store, key)]
    return reasons


def needed_to_go_on(bundles: Sequence[Bundle]) -> dict[str, list[str]]:
    """Return which checkpoints an unfinished run needs to be gone on with, and as what.

    That are the last, the one before it (the last may turn out damaged), and the best up to each of them: what a
    training keeps that keeps a single best one.
    """
    checkpoints = sorted(map(reference_to, bundles), key=lambda c: (c.step, c.attempt))
    if not checkpoints:
        return {}
    if (spec := _checkpoint_spec(bundles[-1])) is None:  # another version's: nothing is known of it, so nothing goes
        return {checkpoint.key: [RESUMABLE] for checkpoint in checkpoints}
    spare = {checkpoint.key for checkpoint in checkpoints_to_prune(checkpoints, spec)}
    needed = {checkpoint.key: [RESUMABLE] for checkpoint in checkpoints if checkpoint.key not in spare}
    needed[checkpoints[-1].key] = [LAST]
    validations = [Validation(step=c.step, metrics=c.metrics) for c in checkpoints if spec.monitor in c.metrics]
    if validations:
        step = best_validation(validations, spec).step
        best = next(c.key for c in reversed(checkpoints) if c.step == step)
        needed[best] = [BEST, *(reason for reason in needed.get(best, ()) if reason == LAST)]
    return needed


def _checkpoint_spec(bundle: Bundle) -> CheckpointSpec | None:
    settings = bundle.meta.get("run", {})
    monitor, mode = settings.get("checkpoint.monitor"), settings.get("checkpoint.mode")
    if monitor is None or mode not in ("min", "max"):
        return None
    return CheckpointSpec(every_n_steps=None, keep=1, monitor=monitor, mode=mode)


def note_collected(store: Store, run_id: str, checkpoints: Sequence[CheckpointRef]) -> None:
    """Leave word in the store that these checkpoints are deleted on purpose; said before they are."""
    keys = sorted(checkpoint.key for checkpoint in checkpoints)
    store.publish(f"runs/{run_id}/collected/{digest_json(keys)[:16]}", lambda folder: None, {"keys": keys})


def collected_steps(store: Store, run_id: str) -> tuple[int, ...]:
    """Return the steps of which `bertpar gc` has deleted a checkpoint, and none is there."""
    notes = [store.find(key) for key in store.list(f"runs/{run_id}/collected")]
    gone = [key for note in notes if note is not None for key in note.meta["keys"] if store.find(key) is None]
    steps = {int(key.rpartition("step-")[2]) for key in gone}
    there = {int(key.rpartition("step-")[2]) for key in store.list(checkpoints_folder(run_id))}
    return tuple(sorted(steps - there))
