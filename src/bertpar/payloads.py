"""How payloads are written and read: as Temporal's own Pydantic converter does, with large ones compressed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
)

_COMPRESSED = "json/zlib"
_NUM_BYTES_TO_COMPRESS = 16_384
"""Smaller payloads stay readable on Temporal's page. What is larger holds the states of many runs, which are alike."""


class _Json(PydanticJSONPlainPayloadConverter):
    def to_payload(self, value: Any) -> Payload | None:
        payload = super().to_payload(value)
        if payload is None or len(payload.data) < _NUM_BYTES_TO_COMPRESS:
            return payload
        return Payload(metadata={"encoding": _COMPRESSED.encode()}, data=zlib.compress(payload.data))


class _CompressedJson(EncodingPayloadConverter):
    """Reads what `_Json` has compressed."""

    @property
    def encoding(self) -> str:
        return _COMPRESSED

    def to_payload(self, value: Any) -> None:
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return _JSON.from_payload(Payload(metadata=payload.metadata, data=zlib.decompress(payload.data)), type_hint)


_JSON = _Json()
"""One for the process: it remembers what it has learned of types, which takes milliseconds. Temporal's SDK makes a
payload converter for every workflow."""


def _converters() -> Sequence[EncodingPayloadConverter]:
    by_default = DefaultPayloadConverter.default_encoding_payload_converters
    others = [converter for converter in by_default if not isinstance(converter, JSONPlainPayloadConverter)]
    return [*others, _CompressedJson(), _JSON]


class PayloadConverter(CompositePayloadConverter):
    """That of every client and worker of bertpar; it reads whatever the Pydantic converter has written."""

    def __init__(self) -> None:
        super().__init__(*_converters())


DATA_CONVERTER = DataConverter(payload_converter_class=PayloadConverter)
