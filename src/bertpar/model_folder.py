"""What a folder with a saved model holds. Light: a client checks with it before anything starts."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from bertpar.errors import ModelError
from bertpar.spec import ModelSpec, digest_json

CONFIG_FILE = "config.json"
_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def weights_file(folder: Path) -> Path | None:
    """Return the file that holds (or indexes) the weights in `folder`; None for a model without weights."""
    return next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)


def check_folder(path: str, folder: Path) -> str | None:
    """Return what `folder`, which `model.path` names, lacks to be a saved model with its tokenizer; None if nothing."""
    if not folder.is_dir():
        return f"model.path={path}: there is no folder {folder}. Give one with a saved model."
    missing = []
    if not (folder / CONFIG_FILE).is_file():
        missing.append(CONFIG_FILE)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append("a tokenizer (tokenizer.json or vocab.txt)")
    if weights_file(folder) is None:
        missing.append("weights (model.safetensors)")
    if not missing:
        return None
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:20]) or "nothing"
    return (
        f"model.path={path}: the folder {folder} lacks {' and '.join(missing)}; there is: {there}. "
        "Save model and tokenizer into one folder with save_pretrained()."
    )


def locate_package(path: str) -> Path:
    """Return the folder that `distribution:folder` names.

    Raises:
        ModelError: `path` has another form, or the distribution is not installed here.
    """
    name, separator, folder = path.partition(":")
    if not separator or not name or not folder:
        raise ModelError(f"model.path={path} must be '<distribution>:<folder>' for model.source=package.")
    try:
        # Not imported: the package's own code is not needed, only its files.
        return Path(str(distribution(name).locate_file(folder)))
    except PackageNotFoundError as error:
        raise ModelError(
            f"model.path={path}: the package {name} is not installed. Install it: pip install {name}"
        ) from error


def settings_problems(model: ModelSpec, max_length: int, folder: Path) -> list[str]:
    """Return one message for each setting that does not fit the saved model in `folder`, which is complete."""
    try:
        config = _read_config(folder)
    except (OSError, ValueError) as error:
        return [f"model.path={model.path}: {folder / CONFIG_FILE} cannot be read: {error}"]
    problems = [weights_problem(model, folder)]
    if model.num_layers is not None and isinstance(available := config.get("num_hidden_layers"), int):
        problems.append(layers_problem(model.num_layers, available))
    if (most := _positions(config)) is not None and max_length > most:
        problems.append(
            f"data.max_length={max_length} must be at most {most}, the tokens that the model in {folder} reads. "
            f"Use data.max_length={most}."
        )
    return [problem for problem in problems if problem is not None]


def max_positions(folder: Path) -> int | None:
    """Return the largest number of tokens that the model in `folder` can read; None if it has no limit."""
    return _positions(_read_config(folder))


def layers_problem(num_layers: int, available: int) -> str | None:
    """Return why a model of `available` layers cannot be cut to `num_layers`; None if it can."""
    if 1 <= num_layers <= available:
        return None
    return f"model.num_layers={num_layers} must be between 1 and {available}, or null for all."


def weights_problem(model: ModelSpec, folder: Path) -> str | None:
    """Return how the weights in `folder` differ from those that `model.weights_sha256` wants; None if they do not."""
    file = weights_file(folder)
    assert file is not None
    if model.weights_sha256 is None or (actual := _digest(file, file.stat().st_mtime_ns)) == model.weights_sha256:
        return None
    return (
        f"model.weights_sha256={model.weights_sha256} is not the digest of {file}, which is {actual}. "
        "Install or download the model again; if these weights are the ones you mean: "
        f"model.weights_sha256={actual}"
    )


def model_digest(folder: Path) -> str:
    """Return the sha256 over what a model is built from in `folder`: its configuration and its weights.

    The tokenizer is no part of it: it is kept with the data that it made.
    """
    files = [folder / CONFIG_FILE, *_weights(folder)]
    return digest_json({file.name: _digest(file, file.stat().st_mtime_ns) for file in files})


def _weights(folder: Path) -> list[Path]:
    """Return all files with weights of the kind that is loaded, where several are there."""
    first = weights_file(folder)
    kind = "*.safetensors" if first is not None and ".safetensors" in first.name else "*.bin"
    return sorted(folder.glob(kind)) if first is not None else []


@cache
def _digest(file: Path, _mtime_ns: int) -> str:
    """Return the sha256 of a file, read once for all runs of a sweep."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it is no JSON object")
    return config


def _positions(config: dict[str, Any]) -> int | None:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    # RoBERTa and its relatives number positions from pad_token_id + 1.
    offset = config.get("pad_token_id", 1) + 1 if "roberta" in str(config.get("model_type")) else 0
    return positions - int(offset)
