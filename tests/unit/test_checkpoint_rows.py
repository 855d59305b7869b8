"""Undelivered metric rows come back to the bit: a second row of another value would contradict the first."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import astuple
from pathlib import Path

from bertpar.checkpoints import read_rows, write_rows
from bertpar.events import MetricRow


def test_rows_come_back_in_order_with_the_bits_of_their_values(tmp_path: Path) -> None:
    rng = random.Random(0)
    values = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(1000)]
    values += [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan]
    rows = [MetricRow(key="val/löss", value=v, step=i, timestamp_ms=1_700_000_000_123) for i, v in enumerate(values)]
    write_rows(tmp_path, rows)
    assert [(*astuple(r)[:1], r.value.hex(), *astuple(r)[2:]) for r in read_rows(tmp_path)] == [
        (*astuple(r)[:1], r.value.hex(), *astuple(r)[2:]) for r in rows
    ]


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path, [])
    assert read_rows(tmp_path) == []
