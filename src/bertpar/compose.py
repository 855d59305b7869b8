"""From Hydra's composed configuration to checked specifications. Every check of a configuration lives here.

Nothing heavy is imported: a client must say what is wrong within a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertpar.data.precheck import check_files
from bertpar.errors import ConfigError, ModelError
from bertpar.hub import check_revision
from bertpar.metric_names import monitored_metrics
from bertpar.model_folder import check_folder, locate_package, settings_problems
from bertpar.paths import Home
from bertpar.reader import Reader
from bertpar.spec import (
    CacheMode,
    CheckpointSpec,
    DataSource,
    DataSpec,
    ModelSource,
    ModelSpec,
    OptimSpec,
    Padding,
    Precision,
    ResumeSpec,
    RunSpec,
    Schedule,
    Task,
    TemporalSpec,
    TrackingSpec,
    TrainerSpec,
)
from bertpar.states import tracking_queue
from bertpar.tracking import resolve_uri
from bertpar.tracking.address import without_password

_SWEEP_SECTIONS = ("temporal", "tracking", "store", "sweep", "resume", "budget")
MISPLACED_EXPERIMENT = (
    "the experiment's file does not begin with the line `# @package _global_`, so that what it sets lands under "
    "`experiment`. Put that line first"
)

_FILE_KEYS = ("train_file", "validation_file", "test_file")


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
    data = _read_data(root.section("data"), problems)
    model = _read_model(root.section("model"))
    if len(problems) == before:
        root.add_problems(_misfits(model, data))
    run = RunSpec(
        seed=seed,
        model=model,
        data=data,
        optim=_read_optim(root.section("optim"), problems),
        trainer=_read_trainer(root.section("trainer")),
        checkpoint=_read_checkpoint(root.section("checkpoint"), data.task),
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


def _read_model(reader: Reader) -> ModelSpec:
    model = ModelSpec(
        name=reader.text("name"),
        source=reader.choice("source", get_args(ModelSource)),
        path=reader.text("path"),
        revision=reader.optional_text("revision"),
        weights_sha256=reader.optional_text("weights_sha256"),
        num_layers=reader.optional_integer("num_layers", minimum=1),
    )
    if model.source == "folder":
        folder = Path(model.path).expanduser().resolve()
        if problem := check_folder(model.path, folder):
            reader.add_problems([problem])
        model = ModelSpec(**{**vars(model), "path": str(folder)})
    if model.source == "hub" and (problem := check_revision("model.revision", model.revision)):
        reader.add_problems([problem])
    reader.refuse_unknown()
    return model


def _misfits(model: ModelSpec, data: DataSpec) -> list[str]:
    """Return which settings do not fit the model, as far as its files are on this machine."""
    if model.source == "folder":
        return settings_problems(model, data.max_length, Path(model.path))
    if model.source != "package":
        return []
    try:
        folder = locate_package(model.path)
    except ModelError:  # the workers may have it
        return []
    problem = check_folder(model.path, folder)
    return [problem] if problem else settings_problems(model, data.max_length, folder)


def _read_data(reader: Reader, problems: list[str]) -> DataSpec:
    before = len(problems)
    files = {key: _absolute(reader.optional_text(key)) for key in _FILE_KEYS}
    data = DataSpec(
        name=reader.text("name"),
        source=reader.choice("source", get_args(DataSource)),
        task=reader.choice("task", get_args(Task)),
        path=reader.optional_text("path"),
        config_name=reader.optional_text("config_name"),
        revision=reader.optional_text("revision"),
        **files,
        text_column=reader.text("text_column"),
        text_pair_column=reader.optional_text("text_pair_column"),
        label_column=reader.text("label_column"),
        id_column=reader.optional_text("id_column"),
        train_size=reader.optional_integer("train_size", minimum=1),
        validation_size=reader.optional_integer("validation_size", minimum=1),
        test_size=reader.optional_integer("test_size", minimum=1),
        validation_fraction=reader.number("validation_fraction", above=0, below=1),
        test_fraction=reader.number("test_fraction", above=0, below=1),
        split_seed=reader.integer("split_seed", minimum=0),
        max_length=reader.integer("max_length", minimum=4),
    )
    reader.refuse_unknown()
    if len(problems) == before:  # what could not be read has been told; its files would be told of too
        reader.add_problems(check_files(data))
    return data


def _absolute(file: str | None) -> str | None:
    """Resolve against the folder where the user typed: workers run elsewhere."""
    return file if file is None or "://" in file else str(Path(file).expanduser().resolve())


def _read_optim(reader: Reader, problems: list[str]) -> OptimSpec:
    before = len(problems)
    lr = reader.number("lr", above=0, maximum=1)
    if any(problem.startswith("lr=") for problem in problems):
        del problems[before:]  # optim.lr follows lr: one mistake, one message
    optim = OptimSpec(
        lr=lr,
        weight_decay=reader.number("weight_decay", minimum=0),
        beta1=reader.number("beta1", minimum=0, below=1),
        beta2=reader.number("beta2", minimum=0, below=1),
        eps=reader.number("eps", above=0),
        warmup_ratio=reader.number("warmup_ratio", minimum=0, maximum=1),
        schedule=reader.choice("schedule", get_args(Schedule)),
        clip=reader.optional_number("clip", above=0, hint="optim.clip=null for no clipping"),
    )
    reader.refuse_unknown()
    return optim


def _read_trainer(reader: Reader) -> TrainerSpec:
    smoke = "For a smoke run: trainer.max_epochs=1 trainer.max_steps=2"
    trainer = TrainerSpec(
        max_epochs=reader.integer("max_epochs", minimum=1, hint=smoke),
        max_steps=reader.optional_integer("max_steps", minimum=1, hint="null for no limit"),
        batch_size=reader.integer("batch_size", minimum=1),
        accumulate=reader.integer("accumulate", minimum=1, hint="1 for no accumulation"),
        eval_batch_size=reader.integer("eval_batch_size", minimum=1),
        precision=reader.choice("precision", get_args(Precision)),
        num_threads=reader.optional_integer("num_threads", minimum=1, hint="null: all, not repeatable"),
        validate_every_n_steps=reader.optional_integer("validate_every_n_steps", minimum=1),
        early_stopping_patience=reader.optional_integer("early_stopping_patience", minimum=1),
        early_stopping_min_delta=reader.number("early_stopping_min_delta", minimum=0),
        log_every_n_steps=reader.integer("log_every_n_steps", minimum=1),
        devices=reader.integer("devices", minimum=1, hint="1 for a single process"),
        padding=reader.choice("padding", get_args(Padding)),
        compile=reader.flag("compile"),
    )
    if trainer.compile and trainer.padding == "packed":
        reader.complain(
            "compile", "needs padded batches: a packed one has another shape at each step. Use trainer.padding=max"
        )
    if trainer.devices > (most := trainer.batch_size * trainer.accumulate):
        reader.complain(
            "devices",
            f"must be at most {most}, the number of examples of a step (trainer.batch_size times trainer.accumulate), "
            "which the devices share",
        )
    reader.refuse_unknown()
    return trainer


def _read_checkpoint(reader: Reader, task: Task) -> CheckpointSpec:
    monitor = reader.optional_choice("monitor", monitored_metrics(task))
    monitor = monitor or ("val/accuracy" if task == "classification" else "val/pearson")
    mode = reader.optional_choice("mode", ("min", "max"))
    checkpoint = CheckpointSpec(
        every_n_steps=reader.optional_integer("every_n_steps", minimum=1, hint="null for none between validations"),
        keep=reader.integer("keep", minimum=1),
        monitor=monitor,
        mode=mode or ("min" if monitor == "val/loss" else "max"),
    )
    reader.refuse_unknown()
    return checkpoint


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
        store_root=_absolute(store.optional_text("root")) or str(home.store),
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
