"""Pretrained encoders: from a ModelSpec to a checked local folder, and from that folder to a classifier.

Importing this module imports neither torch nor transformers: the `load_*` functions and source=random do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertpar.errors import ModelError
from bertpar.hub import check_revision
from bertpar.model_folder import (
    CONFIG_FILE,
    check_folder,
    layers_problem,
    locate_package,
    weights_file,
    weights_problem,
)
from bertpar.paths import home
from bertpar.spec import ModelSpec, Task
from bertpar.tiny_model import make_tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NOT_NEEDED = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*"]
_HUB_TIMEOUT_SECONDS = 10.0
_PLAIN_TEXT = "the film was not bad, and 12 people liked it."


def resolve_model(model: ModelSpec) -> Path:
    """Return a local folder with the model's config.json, tokenizer and (unless random) weights.

    Raises:
        ModelError: there is no such model, a part of it is missing, or its weights are not those of
            `model.weights_sha256`.
    """
    if model.source == "random":
        return _resolve_random(model)
    if model.source == "package":
        folder = locate_package(model.path)
    elif model.source == "folder":
        folder = Path(model.path).expanduser()
    else:
        folder = _download(model)
    if problem := check_folder(model.path, folder):
        raise ModelError(problem)
    if problem := weights_problem(model, folder):
        raise ModelError(problem)
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer in `folder`.

    Raises:
        ModelError: it cannot be loaded, is not a fast one, or maps plain English to its unknown token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # OSError, ValueError, or whatever a broken file makes a tokenizer raise
        raise ModelError(f"model.path: the tokenizer in {folder} cannot be loaded: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"model.path: {folder} has no fast tokenizer. Convert it once, to a tokenizer.json.")
    ids = tokenizer(_PLAIN_TEXT, add_special_tokens=False)["input_ids"]
    num_known = sum(i != tokenizer.unk_token_id for i in ids)
    if 2 * num_known < len(ids) or not ids:
        raise ModelError(
            f"model.path: the tokenizer in {folder} knows {num_known} of the {len(ids)} tokens of "
            f"plain English ({_PLAIN_TEXT!r}); its vocabulary is missing or damaged. "
            "Copy the tokenizer's files again."
        )
    return tokenizer


def load_classifier(
    model: ModelSpec, folder: Path, num_labels: int, label_names: Sequence[str], task: Task, seed: int
) -> PreTrainedModel:
    """Return the encoder of `folder` under a new head of `num_labels` outputs, float32, on the CPU.

    What is not pretrained (the head; for source=random all of it) depends on `seed` alone; torch's global
    random state is left as it was. A head of the same size in the folder is kept: training goes on from it.
    Regression has `num_labels` 1 and no `label_names`.

    Raises:
        ModelError: `model.num_layers` is out of range, transformers has no classifier of this architecture,
            or the weights do not fill the encoder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from bertpar.torch_setup import attention_implementation

    assert task == "classification" or num_labels == 1
    assert len(label_names) == (0 if task == "regression" else num_labels)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model.path: {folder / CONFIG_FILE} cannot be read: {_first_line(error)}") from error
    if model.num_layers is not None:
        config.num_hidden_layers = _checked_num_layers(model.num_layers, config)
    config.num_labels = num_labels
    config.problem_type = "regression" if task == "regression" else "single_label_classification"
    names = list(label_names) or ["score"]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    try:
        with torch.random.fork_rng(devices=[]), _quiet_transformers():
            torch.manual_seed(seed)
            if model.source == "random":
                return AutoModelForSequenceClassification.from_config(
                    config, attn_implementation=attention_implementation()
                )
            classifier, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention_implementation(),
                ignore_mismatched_sizes=True,  # a head for other labels gives way to a new one
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"model.path={model.path}: no sequence classifier can be made of {folder}: {_first_line(error)}"
        ) from error
    _check_encoder_loaded(classifier, report, folder)
    return classifier


def _check_encoder_loaded(classifier: PreTrainedModel, report: dict[str, Any], folder: Path) -> None:
    """Refuse weights that do not fill the encoder: transformers would only warn, and leave it random."""
    encoder = f"{classifier.base_model_prefix}."
    unfilled = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    unfilled = {key for key in unfilled if key.startswith(encoder) and ".pooler." not in key}
    if unfilled:
        raise ModelError(
            f"model.path: {weights_file(folder)} lacks {len(unfilled)} of the encoder's tensors, or has them "
            f"in other shapes ({', '.join(sorted(unfilled)[:3])}, ...): config.json and weights do not "
            "belong together. Save model and tokenizer into one folder with save_pretrained()."
        )


def _checked_num_layers(num_layers: int, config: Any) -> int:
    available = getattr(config, "num_hidden_layers", None)
    if available is None:
        raise ModelError(f"model.num_layers={num_layers}: a {config.model_type} cannot be cut; use null.")
    if problem := layers_problem(num_layers, available):
        raise ModelError(problem)
    return num_layers


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the report on newly initialised and unused weights: a new head is the point of fine-tuning."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _download(model: ModelSpec) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if problem := check_revision("model.revision", model.revision):
        raise ModelError(problem)
    try:
        # One question first: snapshot_download goes on trying for half a minute when nobody answers.
        HfApi().model_info(model.path, revision=model.revision, timeout=_HUB_TIMEOUT_SECONDS)
        return Path(snapshot_download(model.path, revision=model.revision, ignore_patterns=_NOT_NEEDED))
    except Exception as error:  # the hub's, the HTTP client's and the resolver's own classes
        try:
            return Path(snapshot_download(model.path, revision=model.revision, local_files_only=True))
        except Exception:
            raise ModelError(
                f"model.path={model.path} at model.revision={model.revision} is not in the local cache and "
                f"cannot be downloaded: {_first_line(error)}. Check the name and the network, or use "
                "a folder: model=local model.path=/path/to/folder"
            ) from error


def _resolve_random(model: ModelSpec) -> Path:
    if model.path != "tiny":
        raise ModelError(f"model.path={model.path} is unknown for model.source=random; choose from: tiny.")
    if model.weights_sha256 is not None:
        raise ModelError("model.weights_sha256 must be null for model.source=random: it has no weights file.")
    return make_tiny_model(home().cache / "models")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
