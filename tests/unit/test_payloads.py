"""Payloads: what is large is compressed, and everything that was ever written can be read."""

from __future__ import annotations

from temporalio.contrib.pydantic import pydantic_data_converter

from bertpar.mlflow_jobs import MlflowRun
from bertpar.payloads import DATA_CONVERTER

SMALL = [MlflowRun(experiment_id="1", run_id="a")]
LARGE = [MlflowRun(experiment_id="1", run_id=str(number)) for number in range(1000)]

ours, theirs = DATA_CONVERTER.payload_converter, pydantic_data_converter.payload_converter


def test_a_large_payload_is_compressed_and_comes_back() -> None:
    (payload,) = ours.to_payloads([LARGE])
    assert len(payload.data) < len(theirs.to_payloads([LARGE])[0].data) / 5
    assert ours.from_payloads([payload], [list[MlflowRun]]) == [LARGE]


def test_a_small_payload_stays_readable_by_anybody() -> None:
    assert ours.to_payloads([SMALL]) == theirs.to_payloads([SMALL])


def test_what_was_written_before_is_read() -> None:
    assert ours.from_payloads(theirs.to_payloads([LARGE]), [list[MlflowRun]]) == [LARGE]


def test_what_is_nothing_or_bytes_passes_unchanged() -> None:
    assert ours.from_payloads(ours.to_payloads([None, b"bytes"]), [type(None), bytes]) == [None, b"bytes"]
