"""What is wrong with a dataset is told once, with the key or file, the value, what is allowed and the fix."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertpar.data import packaged
from bertpar.data.examples import Examples, check_examples
from bertpar.data.precheck import check_files
from bertpar.data.sources import read_source
from bertpar.data.textfiles import read_text_table
from bertpar.errors import DataError
from bertpar.spec import DataSpec
from tests.unit.data_sets import data_spec, packaged_spec, reviews, write_csv, write_jsonl


def read(data: DataSpec) -> Examples:
    tables, _ = read_source(data)
    return check_examples(tables["train"], data)


def refused(data: DataSpec, *parts: str) -> str:
    """Read the dataset, and return the message of the refusal, which holds all `parts`."""
    with pytest.raises(DataError) as caught:
        read(data)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


# --- the packaged dataset ---------------------------------------------------------------------------------


def test_the_packaged_reviews_are_all_there_and_half_positive() -> None:
    table = read_text_table(packaged.packaged_file("movie_reviews"), "movie_reviews")
    assert table.columns == ["id", "rating", "label", "text"]
    labels = [row["label"] for row in table.rows]
    assert (labels.count("positive"), labels.count("negative"), len(labels)) == (5242, 5326, 10568)
    assert all((float(row["rating"]) > 0) == (row["label"] == "positive") for row in table.rows)
    assert not any("&amp;" in row["text"] or "\ufffd" in row["text"] for row in table.rows)
    assert any("Amélie" in row["text"] for row in table.rows)


def test_an_unknown_packaged_dataset_lists_the_known_ones() -> None:
    refused(packaged_spec(path="books"), "data.path=books is unknown", "choose from: movie_reviews")
    assert check_files(packaged_spec(path="books"))
    assert check_files(packaged_spec()) == []


def test_the_packaged_ratings_serve_regression() -> None:
    labels = read(packaged_spec(label_column="rating", task="regression")).labels
    assert isinstance(labels[0], float)


# --- kinds of files ---------------------------------------------------------------------------------------

ROWS = [{"text": 'She said "hi", twice', "label": "1"}, {"text": "NA", "label": "0"}]


def as_tsv(rows: list[dict[str, Any]]) -> str:
    return "\n".join("\t".join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]) + "\n"


def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path) -> None:
    files = [write_csv(tmp_path / "a.csv", ROWS), write_jsonl(tmp_path / "a.jsonl", ROWS)]
    (tmp_path / "a.tsv").write_text(as_tsv(ROWS))
    (tmp_path / "lines.json").write_text(files[1].read_text())
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.tsv", "a.csv", "a.jsonl", "array.json"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10
    for file in files:
        data = data_spec(file)
        assert check_files(data) == []
        examples = read(data)
        assert examples.texts == [row["text"] for row in ROWS], file.name
        assert examples.labels == ["1", "0"], file.name


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nfine,1\n", encoding="utf-8-sig")
    assert read(data_spec(tmp_path / "a.csv")).texts == ["fine"]


def test_numbers_and_strings_name_the_same_class(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate([1, 1.0, "1", True])]
    assert read(data_spec(write_jsonl(tmp_path / "a.jsonl", rows))).labels == ["1", "1", "1", "true"]


def test_lines_are_counted_across_quoted_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",1\n\n   ,0\n')
    refused(data_spec(tmp_path / "a.csv"), "row 2 (line 5)")


# --- bad files --------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    data = data_spec(tmp_path / "nowhere.csv")
    message = refused(data, "data.train_file=", "nowhere.csv", "there is no such file")
    assert check_files(data) == [message]


def test_every_bad_file_is_told_at_once_before_anything_starts(tmp_path: Path) -> None:
    data = data_spec(tmp_path / "a.csv", validation_file=str(tmp_path), test_file=str(tmp_path / "c.csv"))
    train, validation, test = check_files(data)
    assert "data.train_file=" in train
    assert "is not a file" in validation
    assert "data.test_file=" in test


def test_no_training_file_at_all_is_told() -> None:
    assert "data.train_file" in check_files(data_spec(None))[0]


def test_an_unsupported_extension_lists_the_supported_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.xlsx"
    file.write_bytes(b"x")
    message = refused(data_spec(file), ".csv, .tsv, .jsonl, .json, .parquet")
    assert check_files(data_spec(file)) == [message]


def test_a_missing_column_lists_those_that_are_there(tmp_path: Path) -> None:
    data = data_spec(write_csv(tmp_path / "a.csv", ROWS), text_column="sentence", text_pair_column="other")
    message = refused(data, "no column 'sentence' (data.text_column=sentence)", "text, label", "'other'")
    assert check_files(data) == message.splitlines()


def test_a_column_that_parquet_lacks_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    refused(data_spec(tmp_path / "a.parquet", label_column="y"), "data.label_column=y", "text, label")


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    refused(data_spec(tmp_path / "a.parquet"), "data.train_file=", "not a readable Parquet file")


@pytest.mark.parametrize("content", ["", "text,label\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    refused(data_spec(tmp_path / "a.csv"), "data.train_file=")
    assert len(check_files(data_spec(tmp_path / "a.csv"))) == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "text,label\nfine,1\na, comma,0\n", "line 3 has 3 fields, the header has 2"),
        ("a.tsv", "text\tlabel\nfine\t1\nalone\n", "line 3 has 1 field, the header has 2"),
        ("a.csv", 'text,label\nfine,1\n"open,0\nmore,1\n', "the row that begins on line 3 is malformed"),
        ("a.csv", "text,text\nfine,1\n", "names 'text' more than once"),
        ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": \n', "line 3 is not JSON"),
        ("a.jsonl", '{"text": "a", "label": 1}\n[1]\n', "line 2 is not an object but [1]"),
        ("a.json", '[{"text": "a", "label": 1},\n oops]', "line 2 is not JSON"),
    ],
)
def test_a_malformed_line_is_told_by_its_number(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    refused(data_spec(tmp_path / name), told, "data.train_file=")


def test_a_file_that_is_not_utf8_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\nfine,1\ncliché,0\n".encode("latin-1"))
    refused(data_spec(tmp_path / "a.csv"), "line 3 is not UTF-8")


def test_a_truncated_gzip_file_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + b"".join(b"row %d,1\n" % i for i in range(1000)))
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    refused(data_spec(tmp_path / "a.csv.gz"), "not a whole gzip file")


def test_a_stray_quote_in_tsv_swallows_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"unclosed\t1\nnext\t0\n')
    assert read(data_spec(tmp_path / "a.tsv")).texts == ['"unclosed', "next"]


# --- bad rows ---------------------------------------------------------------------------------------------


def test_empty_nan_and_other_texts_are_told_by_row(tmp_path: Path) -> None:
    texts = ["fine", "", "  ", None, math.nan, 7]
    rows = [{"text": text, "label": "1"} for text in texts]
    message = refused(data_spec(write_jsonl(tmp_path / "a.jsonl", rows)), "data.text_column=text")
    assert "empty or NaN in rows 2 (line 2), 3 (line 3), 4 (line 4), 5 (line 5)." in message
    assert "must be text, but is not in row 6 (line 6); the first is 7" in message


def test_a_text_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud800", "label": 1}\n')
    refused(data_spec(tmp_path / "a.jsonl"), "not valid Unicode in row 1")


def test_only_the_first_ten_of_many_bad_rows_are_listed(tmp_path: Path) -> None:
    rows = [{"text": "", "label": "1"} for _ in range(25)]
    message = refused(data_spec(write_csv(tmp_path / "a.csv", rows)), "10 (line 11) and 15 more")
    assert "(line 12)" not in message


def test_the_second_text_of_a_pair_is_checked_too(tmp_path: Path) -> None:
    rows = [{"text": "a", "other": "", "label": "1"}]
    data = data_spec(write_csv(tmp_path / "a.csv", rows), text_pair_column="other")
    refused(data, "data.text_pair_column=other", "row 1 (line 2)")


def test_missing_labels_are_told_by_row(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "1"}, {"text": "b", "label": ""}, {"text": "c"}]
    refused(data_spec(write_jsonl(tmp_path / "a.jsonl", rows)), "has no label in rows 2 (line 2), 3 (line 3)")


def test_a_label_that_is_no_name_is_told(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": ["x", "y"]}]
    refused(data_spec(write_jsonl(tmp_path / "a.jsonl", rows)), "row 1 (line 1)", "['x', 'y']")


def test_fractions_as_classes_point_to_regression(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "0.5"}, {"text": "b", "label": "2"}]
    refused(data_spec(write_csv(tmp_path / "a.csv", rows)), "such as 0.5", "data.task=regression")


@pytest.mark.parametrize("label", ["high", "nan", "inf"])
def test_a_label_that_is_no_number_is_refused_for_regression(tmp_path: Path, label: str) -> None:
    rows = [{"text": "a", "label": "0.5"}, {"text": "b", "label": label}]
    data = data_spec(write_csv(tmp_path / "a.csv", rows), task="regression")
    refused(data, "row 2 (line 3)", repr(label), "data.task=classification")


def test_duplicate_ids_are_told_by_row(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "1", "id": i} for i in (1, 2, 1)]
    data = data_spec(write_csv(tmp_path / "a.csv", rows), id_column="id")
    refused(data, "data.id_column=id", "'1'", "rows 1 (line 2), 3 (line 4)")
    assert read(data_spec(tmp_path / "a.csv")).row_ids == ["1", "2", "3"], "without the column, rows are numbered"


def test_all_problems_of_a_file_are_told_together(tmp_path: Path) -> None:
    rows = [{"text": "", "label": "", "id": ""}]
    message = refused(data_spec(write_csv(tmp_path / "a.csv", rows), id_column="id"))
    assert len(message.splitlines()) == 3


# --- the hub ----------------------------------------------------------------------------------------------


def hub_folder(folder: Path, **splits: list[dict[str, Any]]) -> DataSpec:
    """A local folder in the hub's layout, which `datasets` loads in the same way."""
    folder.mkdir()
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return data_spec(None, source="hub", path=str(folder), revision="0" * 40)


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.usefixtures("_own_cache")
def test_the_splits_of_a_hub_dataset_are_respected(tmp_path: Path) -> None:
    data = hub_folder(
        tmp_path / "set", train=reviews(4), validation=reviews(2, prefix="v"), test=reviews(3, prefix="t")
    )
    tables, notes = read_source(data)
    assert {split: table.num_rows for split, table in tables.items()} == {
        "train": 4,
        "validation": 2,
        "test": 3,
    }
    assert notes == []


@pytest.mark.usefixtures("_own_cache")
def test_an_unlabelled_test_split_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    test = [{"text": "t", "label": -1}, {"text": "u", "label": -1}]
    train = [{"text": f"a{i}", "label": i % 2} for i in range(4)]
    tables, notes = read_source(hub_folder(tmp_path / "set", train=train, test=test))
    assert set(tables) == {"train"}
    assert "all 2 rows are unlabelled (-1)" in notes[0]


@pytest.mark.usefixtures("_own_cache")
def test_a_label_of_minus_one_that_training_has_too_is_a_label(tmp_path: Path) -> None:
    rows = [{"text": f"a{i}", "label": 2 * (i % 2) - 1} for i in range(4)]
    tables, _ = read_source(hub_folder(tmp_path / "set", train=rows, test=[{"text": "t", "label": -1}]))
    assert set(tables) == {"train", "test"}


@pytest.mark.usefixtures("_own_cache")
def test_class_labels_of_a_hub_dataset_become_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    (tmp_path / "set").mkdir()
    rows = {"text": ["a", "b"], "label": [1, 0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    data = data_spec(None, source="hub", path=str(tmp_path / "set"), revision="0" * 40)
    assert read(data).labels == ["good", "bad"]


def test_a_hub_dataset_needs_a_commit() -> None:
    data = data_spec(None, source="hub", path="org/name", revision="main")
    message = refused(data, "data.revision=main must be a commit")
    assert check_files(data) == [message]


def test_a_hub_dataset_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    data = data_spec(None, source="hub", path=str(tmp_path / "empty"), revision="0" * 40)
    refused(data, f"data.path={tmp_path / 'empty'}", "cannot be loaded", "data=files")
