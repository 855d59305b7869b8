"""Digests of tensors, read from safetensors files without any machine-learning library."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from bertpar.spec import digest_json

WEIGHTS_FILE = "model.safetensors"
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Weights:
    """A model's tensors, each as the sha256 over its dtype, shape and bytes."""

    tensors: dict[str, str]
    """By name, in the order of names."""

    @property
    def digest(self) -> str:
        """The sha256 over all names and tensors: equal for two models exactly if every bit is."""
        return digest_json(self.tensors)

    def first_difference(self, other: Weights) -> str | None:
        """Return the name of the first tensor that is not the same in both, or is in one of them alone."""
        for name in sorted(self.tensors.keys() | other.tensors.keys()):
            if self.tensors.get(name) != other.tensors.get(name):
                return name
        return None


def read_weights(folder: Path) -> Weights:
    """Return the digests of the checkpoint in `folder`. Of the file itself a digest would not do: it may hold more.

    Raises:
        ValueError: the file is not a safetensors file.
    """
    # Format: the header's length as 8 bytes, little-endian; a JSON header; the tensors' bytes one after another.
    with (folder / WEIGHTS_FILE).open("rb") as file:
        (header_length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        header = json.loads(file.read(header_length))
        start = _LENGTH_BYTES + header_length
        tensors = {}
        for name in sorted(header.keys() - {"__metadata__"}):
            about = header[name]
            begin, end = about["data_offsets"]
            file.seek(start + begin)
            digest = hashlib.sha256(f"{about['dtype']} {about['shape']}\0".encode())
            digest.update(file.read(end - begin))
            tensors[name] = digest.hexdigest()
    return Weights(tensors)
