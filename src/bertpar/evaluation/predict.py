"""Predictions for texts that a user hands in. Every line is checked before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertpar.codec import fetch_spec
from bertpar.errors import DataError
from bertpar.evaluation.load import Emit, find_intact_result, load_trained_model, progress_reporter
from bertpar.evaluation.outputs import describe_output
from bertpar.events import PredictJob, PredictResult
from bertpar.store import Store

INPUT_FILE = "input.jsonl"
OUTPUT_FILE = "output.jsonl"
_MOST_PROBLEMS_TOLD = 10


def predict(job: PredictJob, store: Store, emit: Emit) -> PredictResult:
    """Publish the input's objects, in their order, each with `label` and `probabilities`, or `score`.

    An output that is published already is taken as it is, unless it is damaged.

    Raises:
        DataError: lines that cannot be predicted, by number and reason.
        CheckpointDamagedError, SnapshotDamagedError: checkpoint or tokenizer are missing or damaged.
        CorruptError: the input is.
    """
    if (bundle := find_intact_result(store, job.output_key, emit)) is not None:
        return PredictResult(key=bundle.key, num_examples=bundle.meta["num_examples"])
    data = (store.fetch(job.input_key) / INPUT_FILE).read_bytes()
    is_pair = fetch_spec(store, job.spec_key).data.text_pair_column is not None
    records = parse_input(data, is_pair=is_pair, is_regression=job.snapshot.task == "regression")
    trained = load_trained_model(store, job.spec_key, job.snapshot, job.checkpoint, job.demand.num_threads)
    examples = _TokenisedRecords(records, trained.tokenizer, trained.spec.data.max_length, is_pair=is_pair)
    logits_NC = trained.predict(examples, progress_reporter(emit, "predicting"))

    def fill(folder: Path) -> None:
        with (folder / OUTPUT_FILE).open("w", encoding="utf-8") as file:
            for record, logits_C in zip(records, logits_NC, strict=True):
                row = record | describe_output(logits_C, job.snapshot.label_names)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    meta = {"num_examples": len(records), "checkpoint": job.checkpoint.key}
    return PredictResult(key=store.publish(job.output_key, fill, meta).key, num_examples=len(records))


def parse_input(data: bytes, *, is_pair: bool, is_regression: bool) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; empty lines at its end are no lines.

    Raises:
        DataError: for the first ten bad lines, number and reason.
    """
    # split at line feeds alone: JSON strings may hold other characters that Python takes for line ends
    lines = data.rstrip().split(b"\n")
    if lines == [b""]:
        raise DataError(f'{INPUT_FILE} is empty. Give one JSON object a line: {{"text": "..."}}')
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    added = ("score",) if is_regression else ("label", "probabilities")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair cannot be written back
        except ValueError as error:
            problems.append(f"line {number}: is not JSON in UTF-8 ({error})")
            continue
        if problem := _problem_of(record, is_pair=is_pair, added=added):
            problems.append(f"line {number}: {problem}")
        else:
            records.append(record)
    if problems:
        more = len(problems) - _MOST_PROBLEMS_TOLD
        told = [*problems[:_MOST_PROBLEMS_TOLD], *([f"and {more} more bad lines"] if more > 0 else [])]
        raise DataError(f"{INPUT_FILE}:\n  " + "\n  ".join(told))
    return records


def _problem_of(record: Any, *, is_pair: bool, added: Sequence[str]) -> str | None:
    """Return what keeps a line from being predicted, or None."""
    if not isinstance(record, dict):
        return f'must be an object such as {{"text": "..."}}, not {json.dumps(record, ensure_ascii=False)[:40]}'
    for key in ("text", "text_pair") if is_pair else ("text",):
        if key not in record:
            there = ", ".join(map(str, record)) or "none"
            reason = ": this model reads pairs" if key == "text_pair" else ""
            return f"lacks `{key}`{reason}. Its keys: {there}"
        if not isinstance(record[key], str):
            return f"`{key}` must be a string, not {json.dumps(record[key], ensure_ascii=False)[:40]}"
        if not record[key].strip():
            return f"`{key}` is empty"
    if not is_pair and "text_pair" in record:
        return "has a `text_pair`, but this model reads single texts. Remove it, or join it to `text`"
    if taken := [key for key in added if key in record]:
        return f"has a `{taken[0]}`, which the prediction would overwrite. Rename it, for example to `gold`"
    return None


class _TokenisedRecords:
    """Texts as a snapshot would hold them: the same tokenizer, truncation and maximum length."""

    def __init__(self, records: Sequence[Mapping[str, str]], tokenizer: Any, max_length: int, *, is_pair: bool) -> None:
        encoded = tokenizer(
            [record["text"] for record in records],
            [record["text_pair"] for record in records] if is_pair else None,
            truncation="longest_first",
            max_length=max_length,
        )
        self._input_ids: list[list[int]] = encoded["input_ids"]
        # as in a snapshot: single texts have none
        self._token_type_ids: list[list[int]] | None = encoded.get("token_type_ids") if is_pair else None
        self.lengths = np.array([len(ids) for ids in self._input_ids], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._input_ids)

    def example(self, i: int, /) -> dict[str, Any]:
        types = self._token_type_ids
        return {"input_ids": self._input_ids[i], "token_type_ids": None if types is None else types[i]}
