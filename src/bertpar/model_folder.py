"""What a folder with a saved model holds. Light: a client checks with it before anything starts."""

from __future__ import annotations

from pathlib import Path

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
