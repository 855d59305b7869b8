"""A two-layer, 32-wide BERT for tests: configuration and tokenizer. Weights come from a run's seed."""

from __future__ import annotations

import shutil
import string
import tempfile
from pathlib import Path

from bertpar.spec import digest_json

_CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = (
    "the an and of to in is it this that was for with as but film movie story actor plot good bad great "
    "awful boring funny love hate best worst not no never very too you we he she they one all so"
)


def make_tiny_model(parent: Path) -> Path:
    """Return the model's folder below `parent`, made if need be. Any number of processes may ask at once."""
    vocabulary = _vocabulary()
    target = parent / f"tiny-{digest_json([_CONFIG, vocabulary])[:16]}"
    if target.is_dir():
        return target
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".tmp-tiny-", dir=parent))
    try:
        folder.chmod(0o755)
        _write(folder, vocabulary)
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first, with the same files
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _vocabulary() -> list[str]:
    # Every printable ASCII character, alone and inside a word, so that no English word is unknown.
    characters = sorted(string.ascii_lowercase + string.digits + string.punctuation)
    return [*_SPECIAL, *characters, *(f"##{c}" for c in characters), *_WORDS.split()]


def _write(folder: Path, vocabulary: list[str]) -> None:
    from transformers import BertConfig, BertTokenizer

    ids = {token: i for i, token in enumerate(vocabulary)}
    BertConfig(vocab_size=len(ids), pad_token_id=0, **_CONFIG).save_pretrained(folder)
    # vocab=, not vocab_file=: transformers 5 ignores the latter, and every word becomes [UNK].
    BertTokenizer(vocab=ids, model_max_length=_CONFIG["max_position_embeddings"]).save_pretrained(folder)
