"""Reads and checks the sections of a configuration that say what a run computes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from bertpar.data.precheck import check_files
from bertpar.errors import ModelError
from bertpar.hub import check_revision
from bertpar.metric_names import monitored_metrics
from bertpar.model_folder import check_folder, locate_package, settings_problems
from bertpar.reader import Reader
from bertpar.spec import (
    CheckpointSpec,
    DataSource,
    DataSpec,
    ModelSource,
    ModelSpec,
    OptimSpec,
    Padding,
    Precision,
    Schedule,
    Task,
    TrainerSpec,
)

_FILE_KEYS = ("train_file", "validation_file", "test_file")


def read_model(reader: Reader) -> ModelSpec:
    """Return the section `model`, of a folder with its absolute path."""
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


def misfits(model: ModelSpec, data: DataSpec) -> list[str]:
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


def read_data(reader: Reader, problems: list[str]) -> DataSpec:
    """Return the section `data`; a look into its files is taken where the section itself is well."""
    before = len(problems)
    files = {key: absolute(reader.optional_text(key)) for key in _FILE_KEYS}
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


def read_optim(reader: Reader, problems: list[str]) -> OptimSpec:
    """Return the section `optim`."""
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


def read_trainer(reader: Reader) -> TrainerSpec:
    """Return the section `trainer`."""
    smoke = "For a smoke run: trainer.max_epochs=1 trainer.max_steps=2"
    trainer = TrainerSpec(
        max_epochs=reader.integer("max_epochs", minimum=1, hint=smoke),
        max_steps=reader.optional_integer("max_steps", minimum=1, hint="null for no limit"),
        batch_size=reader.integer("batch_size", minimum=1),
        accumulate=reader.integer("accumulate", minimum=1, hint="1 for no accumulation"),
        eval_batch_size=reader.integer("eval_batch_size", minimum=1),
        precision=reader.choice("precision", get_args(Precision)),
        eval_precision=reader.choice("eval_precision", get_args(Precision)),
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


def read_checkpoint(reader: Reader, task: Task) -> CheckpointSpec:
    """Return the section `checkpoint`, with what is monitored for the task where nothing is said."""
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


def absolute(file: str | None) -> str | None:
    """Return a path resolved against the folder where the user typed, for workers run elsewhere; a URL as it is."""
    return file if file is None or "://" in file else str(Path(file).expanduser().resolve())
