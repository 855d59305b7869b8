"""Splits share no text, keep the classes' shares, and do not depend on the order of the rows."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from bertpar.data.examples import RawTable, check_examples
from bertpar.data.sources import read_source
from bertpar.data.splits import Part, allocate, label_names, make_splits
from bertpar.errors import DataError
from bertpar.spec import SPLITS, DataSpec, Split
from tests.unit.data_sets import data_spec, packaged_spec, reviews

Rows = list[dict[str, Any]]


def split_rows(
    train: Rows, *, validation: Rows | None = None, test: Rows | None = None, **changes: Any
) -> tuple[dict[Split, Part], list[str]]:
    data = data_spec("train.csv", **changes)
    rows: dict[Split, Rows | None] = {"train": train, "validation": validation, "test": test}
    given = {
        split: check_examples(
            RawTable(where=f"data.{split}_file={split}.csv", columns={c: [r[c] for r in table] for c in table[0]}),
            data,
        )
        for split, table in rows.items()
        if table is not None
    }
    return make_splits(given, data)


def texts(part: Part) -> list[str]:
    return [part.examples.texts[i] for i in part.indices]


def labels(part: Part) -> Counter[Any]:
    return Counter(part.examples.labels[i] for i in part.indices)


def packaged_splits(data: DataSpec) -> dict[Split, Part]:
    tables, _ = read_source(data)
    return make_splits({"train": check_examples(tables["train"], data)}, data)[0]


# --- cutting ----------------------------------------------------------------------------------------------


def test_missing_splits_are_cut_from_training_with_the_shares_of_the_classes() -> None:
    parts, _ = split_rows(reviews(100, share_positive=0.7))
    assert {split: len(parts[split].indices) for split in SPLITS} == {
        "train": 60,
        "validation": 20,
        "test": 20,
    }
    assert labels(parts["test"]) == {"good": 14, "bad": 6}
    assert labels(parts["validation"]) == {"good": 14, "bad": 6}
    every_text = [text for split in SPLITS for text in texts(parts[split])]
    assert len(set(every_text)) == 100


def test_splits_that_the_source_has_are_respected() -> None:
    validation, test = reviews(6, prefix="v"), reviews(8, prefix="t")
    parts, _ = split_rows(reviews(20), validation=validation, test=test)
    assert texts(parts["validation"]) == [row["text"] for row in validation]
    assert texts(parts["test"]) == [row["text"] for row in test]
    assert len(parts["train"].indices) == 20


def test_only_the_missing_split_is_cut() -> None:
    parts, _ = split_rows(reviews(20), test=reviews(8, prefix="t"))
    assert {split: len(parts[split].indices) for split in SPLITS} == {"train": 16, "validation": 4, "test": 8}


def test_splits_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = reviews(100)
    shuffled = random.Random(3).sample(rows, len(rows))
    one, _ = split_rows(rows, train_size=30)
    other, _ = split_rows(shuffled, train_size=30)
    for split in SPLITS:
        assert sorted(texts(one[split])) == sorted(texts(other[split]))


def test_another_split_seed_gives_other_splits_and_the_same_one_the_same() -> None:
    rows = reviews(100)
    first, again, other = (split_rows(rows, split_seed=seed)[0]["test"] for seed in (0, 0, 1))
    assert texts(first) == texts(again)
    assert set(texts(first)) != set(texts(other))


def test_a_class_of_one_example_stays_in_training() -> None:
    parts, _ = split_rows([*reviews(9), {"text": "the only one", "label": "rare"}], test_fraction=0.3)
    assert "rare" in labels(parts["train"])
    assert "rare" not in labels(parts["test"])


def test_regression_is_cut_without_classes() -> None:
    rows = [{"text": f"t{i}", "label": i / 10} for i in range(50)]
    parts, _ = split_rows(rows, task="regression", train_size=10)
    assert {split: len(parts[split].indices) for split in SPLITS} == {
        "train": 10,
        "validation": 10,
        "test": 10,
    }


# --- subsets ----------------------------------------------------------------------------------------------


def test_a_subset_is_stratified_and_never_a_prefix() -> None:
    rows = reviews(200)  # sorted by label: a prefix would have one class
    parts, _ = split_rows(rows, train_size=50)
    assert labels(parts["train"]) == {"good": 25, "bad": 25}
    assert parts["train"].indices != list(range(50))


def test_a_larger_subset_contains_the_smaller_one() -> None:
    rows = reviews(200)
    small, large = (set(texts(split_rows(rows, train_size=size)[0]["train"])) for size in (20, 60))
    assert small < large


def test_the_demo_sizes_of_the_packaged_reviews_are_half_positive() -> None:
    parts = packaged_splits(packaged_spec())
    counts = {split: labels(parts[split]) for split in SPLITS}
    assert counts == {
        "train": {"positive": 992, "negative": 1008},
        "validation": {"positive": 248, "negative": 252},
        "test": {"positive": 496, "negative": 504},
    }


@pytest.mark.parametrize("split", SPLITS)
def test_a_size_larger_than_what_there_is_says_how_many_there_are(split: Split) -> None:
    there = {"train": 60, "validation": 20, "test": 20}[split]
    with pytest.raises(DataError, match=rf"data\.{split}_size=61 must be between 1 and {there}"):
        split_rows(reviews(100), **{f"{split}_size": 61})


def test_all_sizes_that_are_too_large_are_told_together_with_the_way_to_take_all() -> None:
    with pytest.raises(DataError) as caught:
        split_rows(reviews(100), train_size=256, validation_size=64)
    told = str(caught.value).splitlines()
    assert [line.split("=")[0] for line in told] == ["data.train_size", "data.validation_size"]
    assert "Take all with data.train_size=null, also where experiment=smoke" in told[0]


def test_a_training_subset_keeps_every_class() -> None:
    parts, _ = split_rows(reviews(100, share_positive=0.95), train_size=4)
    assert set(labels(parts["train"])) == {"good", "bad"}
    with pytest.raises(DataError, match=r"data\.train_size=1 is fewer than the 2 labels"):
        split_rows(reviews(100), train_size=1)


@pytest.mark.parametrize(
    ("counts", "total", "limits", "shares"),
    [
        ({"a": 50, "b": 50}, 5, {}, {"a": 3, "b": 2}),
        ({"a": 99, "b": 1}, 2, {"minimum": 1}, {"a": 1, "b": 1}),
        ({"a": 2, "b": 1}, 2, {"spare": 1}, {"a": 1, "b": 0}),
        ({"a": 7, "b": 2, "c": 1}, 10, {}, {"a": 7, "b": 2, "c": 1}),
    ],
)
def test_shares_add_up(counts: dict[str, int], total: int, limits: dict[str, int], shares: dict[str, int]) -> None:
    assert allocate(counts, total, **limits) == shares


# --- no leaks ---------------------------------------------------------------------------------------------


def test_a_repeated_example_is_kept_once_whatever_its_case_and_spaces() -> None:
    rows = [
        *reviews(20),
        {"text": "A  Great\tfilm ", "label": "good"},
        {"text": "a great film", "label": "good"},
    ]
    parts, notes = split_rows(rows)
    kept = [text for split in SPLITS for text in texts(parts[split])]
    assert len(kept) == 21
    assert "A  Great\tfilm " in kept, "the first, as it stands"
    assert notes == ["train: left out, repeats of an earlier example: row 22"]


def test_equal_texts_with_different_labels_are_left_out_with_a_note() -> None:
    rows = [*reviews(20), {"text": "so so", "label": "good"}, {"text": "So so", "label": "bad"}]
    parts, notes = split_rows(rows)
    assert not {"so so", "So so"} & {text for split in SPLITS for text in texts(parts[split])}
    assert notes == ["train: left out, equal texts with different labels: rows 21, 22"]


def test_what_is_in_test_is_in_no_other_split_and_validation_wins_over_training() -> None:
    def row(text: str, label: str = "good") -> dict[str, Any]:
        return {"text": text, "label": label}

    parts, notes = split_rows(
        [*reviews(6), row("in all"), row("IN TEST", "bad"), row("in validation")],
        validation=[row("in all"), row("in validation"), row("v", "bad")],
        test=[row("In all"), row("in test"), row("t", "bad")],
    )
    assert texts(parts["test"]) == ["In all", "in test", "t"]
    assert texts(parts["validation"]) == ["in validation", "v"]
    assert len(parts["train"].indices) == 6
    assert any("rows 7, 8, 9" in note for note in notes)


def test_a_pair_is_the_same_only_if_both_texts_are() -> None:
    rows = [{"text": "a film", "other": f"claim {i % 10}", "label": str(i % 2)} for i in range(20)]
    parts, _ = split_rows(rows, text_pair_column="other")
    assert sum(len(parts[split].indices) for split in SPLITS) == 10


def test_no_text_of_the_packaged_reviews_is_in_two_splits() -> None:
    sizes: dict[str, Any] = {f"{split}_size": None for split in SPLITS}
    parts = packaged_splits(packaged_spec(**sizes))
    seen = [parts[split].examples.keys[i] for split in SPLITS for i in parts[split].indices]
    assert len(seen) == len(set(seen)) == 10566


# --- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_never_sees_is_refused_with_its_rows(split: str) -> None:
    other: Any = [*reviews(4, prefix="x"), {"text": "odd", "label": "ugly"}]
    with pytest.raises(DataError) as caught:
        split_rows(reviews(20), **{split: other})
    for part in (f"data.{split}_file", "'ugly' in row 5", "'bad', 'good'", "data.label_column=label"):
        assert part in str(caught.value)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_one_label_alone_is_refused(task: str) -> None:
    rows = [{"text": f"t{i}", "label": "1"} for i in range(20)]
    with pytest.raises(DataError, match=r"holds .*1.* in all 20 training examples"):
        split_rows(rows, task=task)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [(["10", "2", "1"], ("1", "2", "10")), (["b", "10", "2"], ("10", "2", "b")), (["-1", "1"], ("-1", "1"))],
)
def test_classes_are_numbered_in_sorted_order(names: list[str], ordered: tuple[str, ...]) -> None:
    rows = [{"text": f"t{i}", "label": names[i % len(names)]} for i in range(30)]
    assert label_names(split_rows(rows)[0]["train"]) == ordered


# --- empty splits -----------------------------------------------------------------------------------------


def test_a_split_without_rows_is_refused() -> None:
    data = data_spec("train.csv")
    with pytest.raises(DataError, match=r"data\.test_file=t\.csv: has no rows"):
        check_examples(RawTable(where="data.test_file=t.csv", columns={"text": [], "label": []}), data)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_a_fraction_that_leaves_a_split_empty_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=rf"data\.test_fraction={fraction} of 20 examples"):
        split_rows(reviews(20), test_fraction=fraction)


def test_a_training_split_that_is_all_in_test_is_refused() -> None:
    with pytest.raises(DataError, match="no example is left"):
        split_rows(reviews(4), test=reviews(10, share_positive=0.2))
