"""From Hydra's composed configuration to checked specifications, or to all that is wrong with it.

Nothing heavy is imported: a client must say what is wrong within a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertpar.errors import ConfigError
from bertpar.paths import Home
from bertpar.reader import Reader
from bertpar.run_sections import absolute, misfits, read_checkpoint, read_data, read_model, read_optim, read_trainer
from bertpar.spec import (
    CacheMode,
    ResumeSpec,
    RunSpec,
    TemporalSpec,
    TrackingSpec,
)
from bertpar.states import tracking_queue
from bertpar.tracking import resolve_uri
from bertpar.tracking.address import without_password

_SWEEP_SECTIONS = ("temporal", "tracking", "store", "sweep", "resume", "budget")
MISPLACED_EXPERIMENT = (
    "the experiment's file does not begin with the line `# @package _global_`, so that what it sets lands under "
    "`experiment`. Put that line first"
)


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """What all runs of a sweep have in common: where it runs, not what it computes."""

    name: str
    max_parallel: int | None
    temporal: TemporalSpec
    tracking: TrackingSpec
    store_root: str
    resume: ResumeSpec
    cache: CacheMode
    budget_hours: float | None


def compose_runs(configs: Sequence[DictConfig], labels: Sequence[str], home: Home) -> tuple[SweepSpec, list[RunSpec]]:
    """Return the sweep's and every run's specification.

    Raises:
        ConfigError: with one line per distinct problem of any run, and the runs that it concerns.
    """
    found: dict[str, list[str]] = {}
    sweeps: list[SweepSpec] = []
    runs: list[RunSpec] = []
    for config, label in zip(configs, labels, strict=True):
        problems: list[str] = []
        plain = _resolve(config, problems)
        if not problems:
            runs.append(_read_run(plain, problems))
            sweeps.append(_read_sweep(plain, home, problems))
        for problem in dict.fromkeys(problems):
            found.setdefault(problem, []).append(label)
    if not found and (differing := _differing_sections(configs)):
        for key in differing:
            found[f"{key} cannot be swept: it must be the same for all runs of a sweep"] = list(labels)
    if found:
        raise ConfigError(_report(found, len(configs)))
    return sweeps[0], runs


def _report(found: dict[str, list[str]], num_runs: int) -> str:
    lines = []
    for problem, labels in found.items():
        some = len(labels) < num_runs
        lines.append(f"{problem}  (run {'; '.join(labels)})" if some and any(labels) else problem)
    return "\n".join(lines)


def _resolve(config: DictConfig, problems: list[str]) -> dict[str, Any]:
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            problems.extend(f"{key} must be given: {key}=..." for key in missing)
            return {}
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}")
        return {}
    assert isinstance(plain, dict)
    if isinstance(switch := plain.get("cache"), bool):  # YAML's reading of on and off
        plain["cache"] = "on" if switch else "off"
    return {str(key): value for key, value in plain.items()}


def _differing_sections(configs: Sequence[DictConfig]) -> list[str]:
    first = configs[0]
    return [key for key in (*_SWEEP_SECTIONS, "cache") if any(config[key] != first[key] for config in configs[1:])]


def _read_run(plain: Mapping[str, Any], problems: list[str]) -> RunSpec:
    root = Reader(plain, "", problems)
    root.number("lr", above=0, maximum=1, hint="For example lr=1e-4")  # the name that users sweep comes first
    seed = root.integer("seed", minimum=0)
    before = len(problems)
    data = read_data(root.section("data"), problems)
    model = read_model(root.section("model"))
    if len(problems) == before:
        root.add_problems(misfits(model, data))
    run = RunSpec(
        seed=seed,
        model=model,
        data=data,
        optim=read_optim(root.section("optim"), problems),
        trainer=read_trainer(root.section("trainer")),
        checkpoint=read_checkpoint(root.section("checkpoint"), data.task),
        config=_for_the_record(plain),
    )
    root.choice("cache", get_args(CacheMode))
    for key in _SWEEP_SECTIONS:
        root.section(key)
    root.refuse_unknown(experiment=MISPLACED_EXPERIMENT)
    return run


def _for_the_record(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as it is logged: without a password in tracking.uri."""
    tracking = plain.get("tracking")
    if not isinstance(tracking, Mapping) or not isinstance(tracking.get("uri"), str):
        return dict(plain)
    return {**plain, "tracking": {**tracking, "uri": without_password(tracking["uri"])}}


def _read_sweep(plain: Mapping[str, Any], home: Home, problems: list[str]) -> SweepSpec:
    root = Reader(plain, "", problems)
    temporal, tracking = root.section("temporal"), root.section("tracking")
    store, sweep, resume = root.section("store"), root.section("sweep"), root.section("resume")
    budget = root.section("budget")
    spec = SweepSpec(
        cache=root.choice("cache", get_args(CacheMode)),
        name=sweep.text("name"),
        max_parallel=sweep.optional_integer("max_parallel", minimum=1),
        temporal=TemporalSpec(
            address=temporal.optional_text("address"),
            namespace=temporal.optional_text("namespace"),
            profile=temporal.optional_text("profile"),
            training_queue=temporal.text("training_queue"),
            eval_queue=temporal.text("eval_queue"),
            heartbeat_timeout_seconds=temporal.number("heartbeat_timeout", minimum=2, hint="Seconds"),
            max_attempts=temporal.integer("max_attempts", minimum=1),
        ),
        tracking=TrackingSpec(
            uri=_tracking_uri(tracking.optional_text("uri"), home, problems), experiment=tracking.text("experiment")
        ),
        store_root=absolute(store.optional_text("root")) or str(home.store),
        resume=ResumeSpec(
            allow_inexact=resume.flag("allow_inexact"),
            nan_lr_factor=resume.optional_number("nan_lr_factor", above=0, below=1, hint="null: a NaN loss is final"),
        ),
        budget_hours=budget.optional_number("hours", above=0, hint="null for no limit"),
    )
    if spec.temporal.training_queue in (taken := (spec.temporal.eval_queue, tracking_queue(spec.temporal.eval_queue))):
        problems.append(
            f"temporal.training_queue={spec.temporal.training_queue} must be another queue than {' and '.join(taken)}, "
            "which evaluation workers serve"
        )
    for reader in (temporal, tracking, store, sweep, resume, budget):
        reader.refuse_unknown()
    return spec


def _tracking_uri(uri: str | None, home: Home, problems: list[str]) -> str:
    try:
        return resolve_uri(uri, home)
    except ConfigError as error:
        problems.append(str(error))
        return ""
