"""What a run computes, by content: two runs with the same key give the same bits on the same kind of machine.

Pure data, like spec.py. Names and places are no part of it: a model or dataset that was moved is the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from bertpar.spec import RunSpec, digest_json, flatten

Part = Literal["config", "code", "data", "model", "versions"]
PARTS: tuple[Part, ...] = get_args(Part)

_BY_CONTENT = ("model.", "data.", "start.")
"""Settings that say where to find, or how to make, what the digests of model and snapshot stand for."""

_NOT_OF_THE_RESULT = frozenset({"version", "checkpoint.keep", "checkpoint.every_n_steps"})
"""Which checkpoints lie in the store, but not what is in them."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """All that decides what a run computes, apart from the kind of machine."""

    config: dict[str, str]
    """Settings that affect the result, dotted key to value (see `settings_of`)."""
    code: str
    """Digest of the source that job processes run (code.job_code_digest)."""
    data: str
    """Digest of the snapshot's manifest."""
    model: str
    """Digest of the pretrained configuration and weights (model_folder.model_digest)."""
    versions: dict[str, str]
    """Of the libraries that compute (code.library_versions)."""

    @property
    def key(self) -> str:
        """The run key."""
        return digest_json(asdict(self))


def settings_of(spec: RunSpec) -> dict[str, str]:
    """Return the settings of a run that affect its result, flat, without those that digests of content stand for."""
    plain = flatten({key: value for key, value in asdict(spec).items() if key != "config"})
    layers = plain["model.num_layers"]
    kept = {k: str(v) for k, v in plain.items() if not k.startswith(_BY_CONTENT) and k not in _NOT_OF_THE_RESULT}
    start = spec.start.digest if spec.start is not None else None
    return {**kept, "model.num_layers": str(layers), "start": str(start)}


def differences(ours: Identity, theirs: Identity) -> dict[Part, list[str]]:
    """Return, for each part of the key that differs, a phrase for each thing in it that does: ours, then theirs."""
    found: dict[Part, list[str]] = {}
    for part in PARTS:
        one, other = getattr(ours, part), getattr(theirs, part)
        if isinstance(one, dict):
            phrases = differing_values(one, other)
        else:
            phrases = [f"{one[:12]} instead of {other[:12]}"] if one != other else []
        if phrases:
            found[part] = phrases
    return found


def differing_values(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return a phrase for each key whose values differ, naming both."""
    return [
        f"{key}={ours.get(key, 'nothing')} instead of {theirs.get(key, 'nothing')}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
