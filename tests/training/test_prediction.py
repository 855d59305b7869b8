"""Prediction end to end, and the input that it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bertpar.errors import DataError
from bertpar.evaluation.predict import parse_input
from tests.training.cases import Case, as_lines


def test_predictions_keep_order_fields_and_characters_of_the_input(single: Case) -> None:
    records = [
        {"id": i, "text": text, "note": {"deep": [1, None]}}
        for i, text in enumerate(["good " * 40, "bad", "ein schöner Film 🎬\u2028und ein \x85 Ende", "x" * 5000])
    ]
    rows = single.predict("order", as_lines(records))
    for record, row in zip(records, rows, strict=True):
        assert {key: row[key] for key in record} == record
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert set(row["probabilities"]) == {"neg", "pos"}


def test_an_output_that_is_published_is_not_computed_again(single: Case) -> None:
    first = single.predict("twice", as_lines([{"text": "good"}]))
    assert single.predict("twice", as_lines([{"text": "another"}])) == first


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ('{"text": "\\ud800"}', "not JSON in UTF-8"),
        ('["text"]', "must be an object"),
        ('{"words": "a"}', "lacks `text`. Its keys: words"),
        ('{"text": 3}', "`text` must be a string, not 3"),
        ('{"text": null}', "`text` must be a string, not null"),
        ('{"text": " \\n"}', "`text` is empty"),
        ('{"text": "a", "text_pair": "b"}', "reads single texts"),
        ('{"text": "a", "label": "pos"}', "would overwrite"),
    ],
)
def test_a_bad_line_is_told_by_number_and_reason(line: str, reason: str) -> None:
    data = f'{{"text": "fine"}}\n{line}\n{{"text": "fine"}}\n'.encode()
    with pytest.raises(DataError) as caught:
        parse_input(data, is_pair=False, is_regression=False)
    assert "line 2:" in str(caught.value)
    assert reason in str(caught.value)
    assert "line 1:" not in str(caught.value)


def test_a_line_that_is_not_utf8_is_told_by_number() -> None:
    with pytest.raises(DataError, match="line 2: is not JSON in UTF-8"):
        parse_input(b'{"text": "a"}\n{"text": "\xff"}\n', is_pair=False, is_regression=False)


def test_a_pair_model_wants_the_second_text() -> None:
    with pytest.raises(DataError, match="line 1: lacks `text_pair`: this model reads pairs"):
        parse_input(b'{"text": "a"}', is_pair=True, is_regression=False)


def test_an_empty_input_is_refused_and_many_bad_lines_are_summed_up() -> None:
    with pytest.raises(DataError, match="empty"):
        parse_input(b"\n\n", is_pair=False, is_regression=False)
    with pytest.raises(DataError, match="and 15 more bad lines"):
        parse_input(b"{}\n" * 25, is_pair=False, is_regression=False)


def test_bad_input_fails_before_the_model_is_loaded(single: Case) -> None:
    broken = replace(single, checkpoint=replace(single.checkpoint, key="runs/nowhere"))
    with pytest.raises(DataError, match="line 1"):
        broken.predict("early", "{}\n")
