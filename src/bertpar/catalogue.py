"""The checkpoints of runs, as the store has them, and why each is kept. Temporal, which may forget, is not asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertpar.checkpoints import checkpoints_folder, reference_to
from bertpar.errors import NotFoundError
from bertpar.events import CheckpointRef
from bertpar.holds import forks_of, is_pinned
from bertpar.spec import CheckpointSpec, digest_json
from bertpar.store import Bundle, Store
from bertpar.training.selection import Validation, best_validation, checkpoints_to_prune

BEST, LAST, RESUMABLE, PINNED, FORKED = "best", "last", "resumable", "pinned", "forked from"
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


def evaluated_checkpoints(store: Store) -> dict[str, list[str]]:
    """Return the checkpoints that were chosen as the best, with the runs that chose them (not always their own)."""
    chosen: dict[str, list[str]] = {}
    for key in store.list("runs", "evaluation"):
        if (bundle := store.find(key)) is not None:
            chosen.setdefault(bundle.meta["checkpoint"], []).append(bundle.meta["run_id"])
    return chosen


def read_catalogue(store: Store, run_id: str, chosen: Mapping[str, Sequence[str]]) -> RunCatalogue:
    """Return what the store has of a run; `chosen` is what `evaluated_checkpoints` returns."""
    keys = store.list(checkpoints_folder(run_id))
    bundles = [bundle for key in keys if (bundle := store.find(key)) is not None]
    is_finished = bool(store.list(f"runs/{run_id}/evaluation"))
    kept = keepers(store, run_id, bundles, chosen, is_finished=is_finished)
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


def keepers(
    store: Store, run_id: str, bundles: Sequence[Bundle], chosen: Mapping[str, Sequence[str]], *, is_finished: bool
) -> dict[str, list[str]]:
    """Return why each checkpoint of a run is kept, by key. A new reason to keep one belongs here, and in holds.py."""
    reasons: dict[str, list[str]] = {bundle.key: [] for bundle in bundles}
    if not is_finished:
        reasons.update(needed_to_go_on(bundles))
    for key, found in reasons.items():
        for user in chosen.get(key, ()):
            found.append(BEST if user == run_id else f"{BEST} of {user}")
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
