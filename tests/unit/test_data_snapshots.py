"""A snapshot is made once for the same content, and read back as it was made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bertpar.codec import from_json, to_json
from bertpar.data.snapshot import fetch_tokenizer, make_snapshot, open_split
from bertpar.errors import DataError, ModelError, SnapshotDamagedError, StoreError
from bertpar.events import SnapshotRef
from bertpar.models import load_tokenizer, resolve_model
from bertpar.spec import SPLITS, DataSpec, ModelSpec
from bertpar.store import MANIFEST, Store
from tests.unit.data_sets import MINILM, TINY, data_spec, packaged_spec, reviews, write_csv


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTPAR_HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    return data_spec(write_csv(tmp_path / "train.csv", reviews(40)))


def snapshots_in(store: Store) -> list[str]:
    return [path.name for path in (Path(store.root) / "snapshots").iterdir()]


# --- the key ----------------------------------------------------------------------------------------------


def test_the_same_content_is_found_and_nothing_is_written_again(store: Store, data: DataSpec) -> None:
    notes: list[tuple[str, Any]] = []
    first = make_snapshot(data, TINY, store)
    file = Path(store.root) / first.key / "train.arrow"
    before = file.stat()
    second = make_snapshot(data, TINY, store, lambda kind, value: notes.append((kind, value)))
    assert second == first
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert notes == [("note", f"{first.key} is there already: 8 test, 24 train, 8 validation")]


def test_the_key_does_not_depend_on_names_paths_or_unused_columns(store: Store, data: DataSpec, tmp_path: Path) -> None:
    rows = [{"unused": i, "sentence": row["text"], "label": row["label"]} for i, row in enumerate(reviews(40))]
    moved = write_csv(tmp_path / "moved.csv", rows)
    same = replace(data, name="other", train_file=str(moved), text_column="sentence")
    assert make_snapshot(same, replace(TINY, num_layers=1), store) == make_snapshot(data, TINY, store)


CHANGES: dict[str, dict[str, Any]] = {
    "max_length": {"max_length": 31},
    "split_seed": {"split_seed": 1},
    "test_fraction": {"test_fraction": 0.3},
    "train_size": {"train_size": 10},
    "pair": {"text_pair_column": "label"},
    "id": {"id_column": "text"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_changes_with_every_rule(store: Store, data: DataSpec, change: str) -> None:
    other = make_snapshot(replace(data, **CHANGES[change]), TINY, store)
    assert other.key != make_snapshot(data, TINY, store).key


@pytest.mark.parametrize(("row", "column", "value"), [(39, "text", "another film"), (7, "label", "bad")])
def test_the_key_changes_with_one_cell_of_one_row(
    store: Store, data: DataSpec, tmp_path: Path, row: int, column: str, value: str
) -> None:
    rows = reviews(40)
    assert rows[row][column] != value
    rows[row][column] = value
    # Few are kept, so that the changed row is hardly among them: the key covers the source, not the subset.
    small = replace(data, train_size=2, validation_size=1, test_size=1)
    changed = replace(small, train_file=str(write_csv(tmp_path / "changed.csv", rows)))
    assert make_snapshot(changed, TINY, store).key != make_snapshot(small, TINY, store).key


def test_the_key_changes_with_one_row_less(store: Store, data: DataSpec, tmp_path: Path) -> None:
    shorter = replace(data, train_file=str(write_csv(tmp_path / "shorter.csv", reviews(40)[:-1])))
    assert make_snapshot(shorter, TINY, store).key != make_snapshot(data, TINY, store).key


def test_another_tokenizer_gives_another_snapshot(store: Store, data: DataSpec) -> None:
    tiny, minilm = (make_snapshot(data, model, store) for model in (TINY, MINILM))
    assert tiny.key != minilm.key
    assert tiny.tokenizer_key != minilm.tokenizer_key


# --- made once --------------------------------------------------------------------------------------------

MAKER = """
import sys
from pathlib import Path
from bertpar.codec import from_json
from bertpar.data.snapshot import make_snapshot
from bertpar.spec import DataSpec, ModelSpec
from bertpar.store import Store
root, data, model = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()  # until the other is ready too
ref = make_snapshot(from_json(DataSpec, data), from_json(ModelSpec, model), Store(root, Path(root)), print)
print(ref.digest)
"""


def test_two_makers_at_once_publish_one_snapshot(store: Store) -> None:
    arguments = [store.root, to_json(packaged_spec()), to_json(TINY)]
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    outputs = [maker.communicate()[0] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert sum(" is made: " in output for output in outputs) == 1, outputs
    assert sum(" is there already: " in output for output in outputs) == 1, outputs
    assert len({output.split()[-1] for output in outputs}) == 1
    assert len(snapshots_in(store)) == 1


def test_a_refused_dataset_leaves_nothing_half_written(store: Store, data: DataSpec) -> None:
    with pytest.raises(DataError):
        make_snapshot(replace(data, train_size=1000), TINY, store)
    assert not (Path(store.root) / "snapshots").exists()


def test_a_store_that_cannot_be_written_is_told(data: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"store\.root="):
        make_snapshot(data, TINY, Store(str(tmp_path / "file"), tmp_path / "cache"))


# --- reading back -----------------------------------------------------------------------------------------


def test_the_packaged_reviews_come_back_as_they_are(store: Store) -> None:
    snapshot = make_snapshot(packaged_spec(), MINILM, store)
    assert snapshot.label_names == ("negative", "positive")
    assert snapshot.num_examples == {"train": 2000, "validation": 500, "test": 1000}
    tokenizer = load_tokenizer(store.fetch(snapshot.tokenizer_key))
    test = open_split(store, snapshot, "test")
    assert len(test) == len(test.lengths) == 1000
    assert not test.is_pair
    for i in (0, 500, 999):
        example = test.example(i)
        assert example["input_ids"] == tokenizer(test.text(i))["input_ids"]
        assert example["token_type_ids"] is None
        assert len(example["input_ids"]) == test.lengths[i]
        assert test.text_pair(i) is None
        assert int(test.row_id(i)) > 0
    assert sum(test.example(i)["label"] for i in range(len(test))) == 496


def test_labels_keep_their_texts_and_row_numbers(store: Store, data: DataSpec) -> None:
    rows = reviews(40)
    snapshot = make_snapshot(data, TINY, store)
    seen = set()
    for split in SPLITS:
        part = open_split(store, snapshot, split)
        for i in range(len(part)):
            row = rows[int(part.row_id(i)) - 1]
            assert (part.text(i), snapshot.label_names[int(part.example(i)["label"])]) == (
                row["text"],
                row["label"],
            )
            seen.add(part.row_id(i))
    assert len(seen) == 40


def test_pairs_are_truncated_longest_first_and_keep_both_texts(store: Store, tmp_path: Path) -> None:
    rows = [{"text": f"the {i} " * 30, "other": f"a {i}", "label": str(i % 2)} for i in range(20)]
    data = data_spec(write_csv(tmp_path / "a.csv", rows), text_pair_column="other", max_length=12)
    notes: list[Any] = []
    snapshot = make_snapshot(data, TINY, store, lambda kind, value: notes.append(value))
    train = open_split(store, snapshot, "train")
    example = train.example(0)
    assert train.is_pair
    assert train.text_pair(0) == rows[int(train.row_id(0)) - 1]["other"]
    types = example["token_type_ids"]
    assert types is not None
    assert len(example["input_ids"]) == len(types) == 12
    tokenizer = load_tokenizer(resolve_model(TINY))
    second = [token for token, kind in zip(example["input_ids"], types, strict=True) if kind == 1]
    assert second == tokenizer(train.text_pair(0), add_special_tokens=False)["input_ids"] + [tokenizer.sep_token_id]
    assert "train: 12 of 12 are cut to data.max_length=12 tokens" in notes


def test_regression_labels_are_numbers(store: Store, tmp_path: Path) -> None:
    rows = [{"text": f"film {i}", "label": f"{i / 4}"} for i in range(20)]
    snapshot = make_snapshot(data_spec(write_csv(tmp_path / "a.csv", rows), task="regression"), TINY, store)
    assert snapshot.label_names == ()
    train = open_split(store, snapshot, "train")
    assert [train.example(i)["label"] for i in range(12)] == [(int(train.row_id(i)) - 1) / 4 for i in range(12)]


def test_a_split_is_an_arrow_file_that_datasets_can_map(store: Store, data: DataSpec) -> None:
    import datasets

    snapshot = make_snapshot(data, TINY, store)
    mapped = datasets.Dataset.from_file(str(store.fetch(snapshot.key) / "train.arrow"))
    assert list(mapped["input_ids"][3]) == open_split(store, snapshot, "train").example(3)["input_ids"]


def test_a_damaged_snapshot_is_refused(store: Store, data: DataSpec) -> None:
    snapshot = make_snapshot(data, TINY, store)
    file = Path(store.root) / snapshot.key / "test.arrow"
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)
    with pytest.raises(SnapshotDamagedError, match=r"test\.arrow"):
        open_split(store, snapshot, "test")


def test_another_snapshot_than_the_one_meant_is_refused(store: Store, data: DataSpec) -> None:
    snapshot = make_snapshot(data, TINY, store)
    with pytest.raises(SnapshotDamagedError, match="has digest"):
        open_split(store, SnapshotRef(**(asdict(snapshot) | {"digest": "0" * 64})), "train")


# --- made again -------------------------------------------------------------------------------------------

MAKE = """
import sys
from pathlib import Path
from bertpar.codec import from_json, to_json
from bertpar.data.snapshot import make_snapshot
from bertpar.spec import DataSpec, ModelSpec
from bertpar.store import Store
root, data, model = sys.argv[1:]
print(to_json(make_snapshot(from_json(DataSpec, data), from_json(ModelSpec, model), Store(root, Path(root)))))
"""


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("bundle", ["snapshot", "tokenizer"])
@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_damaged_snapshot_or_tokenizer_is_set_aside_and_made_again(
    store: Store, data: DataSpec, bundle: str, damage: Callable[[Path], None]
) -> None:
    first = make_snapshot(data, TINY, store)
    key, name = (first.key, "train.arrow") if bundle == "snapshot" else (first.tokenizer_key, "tokenizer.json")
    damage(Path(store.root) / key / name)
    with pytest.raises(SnapshotDamagedError, match=f"{key} .*{name}"):
        _ = open_split(store, first, "train") if bundle == "snapshot" else fetch_tokenizer(store, first)
    notes: list[str] = []
    assert make_snapshot(data, TINY, store, lambda kind, value: notes.append(value)) == first
    open_split(store, first, "train")
    fetch_tokenizer(store, first)
    [note] = [note for note in notes if "damaged" in note]
    assert key in note
    assert note.endswith("it is made again")
    assert len([*(Path(store.root) / "damaged").rglob(MANIFEST)]) == 1


def test_a_snapshot_whose_source_has_changed_is_not_made_again_under_its_key(store: Store, tmp_path: Path) -> None:
    data = data_spec(write_csv(tmp_path / "train.csv", reviews(40)))
    first = make_snapshot(data, TINY, store)
    flip_a_bit(Path(store.root) / first.key / "train.arrow")
    write_csv(tmp_path / "train.csv", reviews(41))
    assert make_snapshot(data, TINY, store).key != first.key
    with pytest.raises(SnapshotDamagedError, match=first.key):
        open_split(store, first, "train")


def test_other_processes_and_stores_make_the_same_bytes(tmp_path: Path) -> None:
    """Otherwise a snapshot that is made again would not be the one that checkpoints and results refer to."""
    data = packaged_spec(train_size=200, validation_size=50, test_size=50)
    refs = []
    for hash_seed in ("1", "2"):
        root = tmp_path / f"store-{hash_seed}"
        home = tmp_path / f"home-{hash_seed}"
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "BERTPAR_HOME": str(home)}
        command = [sys.executable, "-c", MAKE, str(root), to_json(data), to_json(TINY)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        ref = from_json(SnapshotRef, done.stdout)
        refs.append((ref, Store(str(root), root).find(ref.tokenizer_key)))
    assert refs[0] == refs[1]


# --- the model's part -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "max_length", "most"), [(TINY, 129, 128), (MINILM, 513, 512), (TINY, 2, 128)])
def test_max_length_must_fit_the_model(
    store: Store, data: DataSpec, model: ModelSpec, max_length: int, most: int
) -> None:
    with pytest.raises(DataError, match=rf"data\.max_length={max_length} must be between 3 and {most}"):
        make_snapshot(replace(data, max_length=max_length), model, store)


def test_a_wrong_weights_digest_is_told_before_any_data_is_read(store: Store) -> None:
    with pytest.raises(ModelError, match=r"model\.weights_sha256"):
        make_snapshot(data_spec("nowhere.csv"), replace(MINILM, weights_sha256="f" * 64), store)
