"""Adds runs to a live sweep: composed like its first run, with other values for what it sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from temporalio.client import Client

from bertpar.answers import query
from bertpar.compose import SweepSpec
from bertpar.composing import compose_sweep, given_values
from bertpar.errors import ConfigError, RefusedError
from bertpar.hydra_errors import explain
from bertpar.paths import Home
from bertpar.states import RunRef, Steered, SweepOptions, SweepStatus
from bertpar.steer import SETTINGS, Say, over, update
from bertpar.store import Store
from bertpar.submit import check_fits, run_refs, sweep_options
from bertpar.workflows.coordinator import CoordinatorWorkflow

_KEYS = {
    "store_root": "store.root",
    "training_queue": "temporal.training_queue",
    "eval_queue": "temporal.eval_queue",
    "heartbeat_timeout_seconds": "temporal.heartbeat_timeout",
    "max_attempts": "temporal.max_attempts",
}
"""The configuration's names for options that have another one here."""


async def add(
    client: Client, sweep_id: str, overrides: Sequence[str], home: Home, say: Say, *, config_dir: Path | None = None
) -> tuple[Steered, list[RunRef]]:
    """Add the runs that `overrides` describe, in Hydra's grammar: `lr=5e-5 seed=1,2` adds two. Numbers continue.

    Each is composed from the overrides of the sweep's first run, without the keys that the sweep varies, and these.

    Raises:
        ConfigError: an override is wrong, a configuration invalid, or one that differs where a sweep cannot.
        NotFoundError, RefusedError: as in steer.py; a run is in the sweep already, or the code is not the sweep's.
    """
    sweep: SweepStatus = await query(client, sweep_id, CoordinatorWorkflow.status)
    if sweep.status != "running":
        raise over(sweep)
    if not sweep.runs:
        raise RefusedError(f"sweep {sweep_id} has no run yet that another could be like")
    varied = sweep.runs[0].run.swept
    base = without_keys(sweep.runs[0].run.overrides, [*(f"{key}={value}" for key, value in varied.items()), *overrides])
    batch = compose_sweep([*base, *overrides], home, config_dir=config_dir, first_index=len(sweep.runs))
    check_same_sweep(sweep, batch.sweep, overrides)
    check_fits(batch, home)
    store = Store(batch.sweep.store_root, home.cache)
    store.check_writable()
    refs = run_refs(sweep_id, replace(batch, given=frozenset(given_values(base))), store)
    steered = await update(client, sweep_id, CoordinatorWorkflow.extend, tuple(refs), say)
    return steered, refs


def without_keys(overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return those of the overrides whose keys the others do not give."""
    given = {_key(item) for item in others}
    return [item for item in overrides if _key(item) not in given]


def _key(override: str) -> str:
    try:
        return str(OverridesParser.create().parse_override(override).key_or_group)
    except HydraException as error:
        raise ConfigError(explain(error)) from error


def check_same_sweep(sweep: SweepStatus, spec: SweepSpec, overrides: Sequence[str]) -> None:
    """Refuse what cannot differ within a sweep, with both values."""
    for key in (*SETTINGS, "sweep.max_parallel"):
        if key in map(_key, overrides):
            setting = key.removeprefix("sweep.")
            raise ConfigError(f"{key} is the whole sweep's: bertpar set {sweep.sweep_id} {setting}=...")
    options = sweep_options(spec, sweep.options.temporal_ui)
    if options.code != sweep.options.code:
        raise RefusedError(
            f"what computes runs has changed since sweep {sweep.sweep_id} was submitted ({_changed(options, sweep)}): "
            "its runs and new ones could not be compared. Start another sweep"
        )
    found = [("sweep.name", spec.name, sweep.name)] if spec.name != sweep.name else []
    found += _differences(options, sweep.options)
    if found:
        shown = "; ".join(f"{key}={ours} (the sweep's: {theirs})" for key, ours, theirs in found)
        raise ConfigError(f"runs of one sweep cannot differ in {shown}. Leave it out, or start another sweep")


def _changed(options: SweepOptions, sweep: SweepStatus) -> str:
    ours, theirs = options.code, sweep.options.code
    names = [
        name for name in {**ours.versions, **theirs.versions} if ours.versions.get(name) != theirs.versions.get(name)
    ]
    code = ["the code of bertpar"] if ours.digest != theirs.digest else []
    return ", ".join([*code, *(f"{name} {theirs.versions.get(name)} -> {ours.versions.get(name)}" for name in names)])


def _differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if is_dataclass(one):
            yield from _differences(one, other, f"{field.name}.")
        elif one != other and field.name not in SETTINGS.values():  # which may have been set since
            yield _KEYS.get(field.name, prefix + field.name), one, other
