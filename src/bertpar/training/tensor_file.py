"""A safetensors file in memory, whose room is used again: to keep tensors is one pass over them, to write is none.

The format: the header's length as 8 bytes, little-endian; a JSON header; the tensors' bytes, one after another.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from bertpar.store.direct import BLOCK_BYTES

_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class TensorFile:
    """Keeps tensors in memory as the file that holds them. Its room fits those of the first call, and of like ones."""

    def __init__(self) -> None:
        self._header = b""
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._places: dict[str, Tensor] = {}
        """By name, the part of the buffer that holds the tensor."""

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors, from whatever device. What was kept before is gone."""
        header = _header_of(tensors)
        if header != self._header:
            self._make_room(header, tensors)
        for name, tensor in tensors.items():
            self._places[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()

    def content(self) -> tuple[bytes, memoryview]:
        """Return the parts of the file, one after another, at positions where whole blocks begin.

        The second changes with the next `keep`.
        """
        return self._header, self._buffer.numpy().data

    def _make_room(self, header: bytes, tensors: Mapping[str, Tensor]) -> None:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        pinned = any(tensor.is_cuda for tensor in tensors.values())  # else each copy waits for the device
        with torch.inference_mode(False):  # a validation's end is in it, and its tensors cannot be written elsewhere
            memory = torch.empty(num_bytes + BLOCK_BYTES, dtype=torch.uint8, pin_memory=pinned)
            self._buffer = memory[-memory.data_ptr() % BLOCK_BYTES :][:num_bytes]
            self._places, start = {}, 0
            for name in _in_order(tensors):
                tensor = tensors[name]
                room = self._buffer[start : start + tensor.nbytes]
                self._places[name] = room.view(tensor.dtype).view(tensor.shape)
                start += tensor.nbytes
        self._header = header


def _in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the length and the header of the file with these tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in _in_order(tensors):
        tensor, start = tensors[name], end
        end += tensor.nbytes
        header[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % BLOCK_BYTES)
    return struct.pack("<Q", len(text)) + text
