"""What the store knows of equal runs: results, kept under the run's key, and claims, by which two do not do one work.

    results/KEY      a finished run's result, with the run's identity
    claims/KEY/N     the N-th run that set out to compute KEY, with its identity
    runs/RUN/origin  whose result or checkpoints RUN uses

Bundles without files, so that all is in the manifest, committed atomically: of two that claim at once, one is first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertpar.checkpoints import find_checkpoints
from bertpar.claims import KeptResult
from bertpar.codec import adapter, fetch_spec
from bertpar.events import CheckpointRef, Code, SnapshotRef
from bertpar.identity import Identity, settings_of
from bertpar.spec import RunSpec
from bertpar.store import Store

_RESULTS = "results"
_CLAIMS = "claims"

NUM_CANDIDATES = 8
"""Checkpoints of equal runs that are offered to a run, newest first."""


@dataclass(frozen=True, kw_only=True)
class KnownRun:
    """A run of which the store knows what it computes."""

    run_id: str
    identity: Identity
    result: KeptResult | None
    """None for one that has begun, and whose result is not there."""


def identify(spec: RunSpec, snapshot: SnapshotRef, code: Code) -> Identity:
    """Return what decides the result of `spec` on `snapshot`, computed with `code`."""
    return Identity(
        config=settings_of(spec),
        code=code.digest,
        data=snapshot.digest,
        model=snapshot.model_digest,
        versions=code.versions,
    )


def identify_stored(store: Store, spec_key: str, snapshot: SnapshotRef, code: Code) -> Identity:
    """Return the identity of the run whose RunSpec lies in the store.

    Raises:
        CorruptError: it is missing or damaged.
    """
    return identify(fetch_spec(store, spec_key), snapshot, code)


def keep_result(store: Store, identity: Identity, result: KeptResult) -> None:
    """Keep a run's result for equal runs; the first one stays, and one that is not that of an undisturbed run is not.

    An equal run gives the same bits, so that it does not matter whose is kept.
    """
    if not result.training.inexact:
        if find_result(store, identity.key) is None:  # what it needs is gone: it makes room
            store.remove(_result_key(identity.key))
        store.publish(_result_key(identity.key), _no_files, {"identity": asdict(identity), "result": asdict(result)})


def find_result(store: Store, key: str, *, verify: bool = False) -> KeptResult | None:
    """Return the result kept under a run key; None if there is none, or its checkpoint or evaluation are gone.

    `verify` reads their files, too: what is damaged is set aside.
    """
    bundle = store.find(_result_key(key))
    if bundle is None:
        return None
    result: KeptResult = _read(KeptResult, bundle.meta["result"])
    needed = (result.training.best, result.evaluation)
    if verify:
        whole = all(store.fetch_intact(part.key, digest=part.digest) is not None for part in needed)
    else:
        whole = all((found := store.find(p.key)) is not None and found.digest == p.digest for p in needed)
    return result if whole else None


def claims(store: Store, key: str) -> dict[int, str]:
    """Return the runs that have set out to compute `key`, by the number of their claim, the first one first."""
    bundles = [store.find(claim) for claim in store.list(f"{_CLAIMS}/{key}")]
    return {int(bundle.key.rpartition("/")[2]): str(bundle.meta["run_id"]) for bundle in bundles if bundle is not None}


def claim(store: Store, identity: Identity, number: int, run_id: str) -> bool:
    """Set out as number `number` to compute `identity`; return whether nobody else had that number first."""
    meta = {"run_id": run_id, "identity": asdict(identity)}
    bundle = store.publish(f"{_CLAIMS}/{identity.key}/{number:06d}", _no_files, meta)
    return bool(bundle.meta["run_id"] == run_id)


def checkpoints_of_equal_runs(store: Store, run_ids: Sequence[str]) -> list[CheckpointRef]:
    """Return the checkpoints of runs with one key that can be gone on with, newest first.

    Those that tell of an inexact run are left out.
    """
    found = [checkpoint for run_id in dict.fromkeys(run_ids) for checkpoint in find_checkpoints(store, run_id)]
    exact = [c for c in found if store_meta(store, c.key).get("exact", True)]
    return sorted(exact, key=lambda c: (c.step, c.attempt), reverse=True)


def record_origin(store: Store, run_id: str, origin: str, *, reused: bool) -> None:
    """Keep whose result, or whose checkpoints, `run_id` uses; what was so before its retry is forgotten."""
    meta = {"run_id": origin, "reused": reused}
    if store_meta(store, key := _origin_key(run_id)) != meta:
        store.remove(key)
        store.publish(key, _no_files, meta)


def forget_origin(store: Store, run_id: str) -> None:
    """Keep that the run stands alone, whatever it used before its retry."""
    store.remove(_origin_key(run_id))


def find_origin(store: Store, run_id: str) -> str | None:
    """Return whose result, or whose checkpoints, `run_id` uses; None for a run that stands alone."""
    bundle = store.find(_origin_key(run_id))
    return None if bundle is None else str(bundle.meta["run_id"])


def lineage(store: Store, run_id: str) -> list[str]:
    """Return the run, the run that it uses, the one that that one uses, and so on."""
    runs = [run_id]
    while (origin := find_origin(store, runs[-1])) is not None and origin not in runs:
        runs.append(origin)
    return runs


def unreused_runs_with_origin(store: Store) -> list[str]:
    """Return the runs that go on, or went on, from the checkpoints of another one."""
    keys = [key for key in store.keys("runs") if key.endswith("/origin")]
    return sorted(key.removeprefix("runs/").removesuffix("/origin") for key in keys if not _is_reused(store, key))


def _is_reused(store: Store, origin_key: str) -> bool:
    return bool(store_meta(store, origin_key).get("reused", True))


def known_runs(store: Store) -> Iterator[KnownRun]:
    """Return every run of which the store knows what it computes, those with a result first."""
    finished = set()
    for key in store.list(_RESULTS):
        meta = store_meta(store, key)
        result = _read(KeptResult, meta["result"])
        finished.add(key.rpartition("/")[2])
        yield KnownRun(run_id=result.run_id, identity=_read(Identity, meta["identity"]), result=result)
    for key in store.list(_CLAIMS):
        if key.split("/")[1] not in finished:
            meta = store_meta(store, key)
            yield KnownRun(run_id=meta["run_id"], identity=_read(Identity, meta["identity"]), result=None)


def store_meta(store: Store, key: str) -> dict[str, Any]:
    """Return what the manifest of a bundle says beside its files; nothing where it was removed meanwhile."""
    bundle = store.find(key)
    return {} if bundle is None else bundle.meta


def _result_key(key: str) -> str:
    return f"{_RESULTS}/{key}"


def _origin_key(run_id: str) -> str:
    return f"runs/{run_id}/origin"


def _read(cls: type[Any], plain: Any) -> Any:
    return adapter(cls).validate_python(plain)


def _no_files(folder: Path) -> None:
    pass
