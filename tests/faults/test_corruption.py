"""Whatever happens to a file of the store, nobody takes it for what was published: each case at random places."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertpar.checkpoints import checkpoint_key
from bertpar.data.snapshot import make_snapshot
from bertpar.errors import CorruptError
from bertpar.models import load_classifier, resolve_model
from bertpar.paths import HOME_VARIABLE
from bertpar.store import MANIFEST, Store
from bertpar.training.saving import CheckpointCopy
from bertpar.training.state import TrainingState
from tests.unit.data_sets import MINILM, TINY, data_spec, reviews, write_csv

PLACES_PER_CASE = 5
KINDS = ("checkpoint", "evaluation", "snapshot", "tokenizer")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two bundles of each kind, as training, evaluation and data preparation make them."""
    folder = tmp_path_factory.mktemp("pristine")
    store = Store(str(folder / "store"), folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder / "home"))
        data = data_spec(write_csv(folder / "train.csv", reviews(40)))
        for model in (TINY, MINILM):
            make_snapshot(data, model, store)
        for seed in (1, 2):
            model = load_classifier(TINY, resolve_model(TINY), 2, ("bad", "good"), "classification", seed)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 * seed)
            state = TrainingState(step=10 * seed, window=[0.5])
            copy = CheckpointCopy().take(state, model, optimizer.state_dict())
            copy.publish(store, checkpoint_key("sweep/0", 1, 10 * seed), {"attempt": 1})
    for i in (1, 2):
        store.publish(f"runs/sweep/0/evaluation/{i}", lambda folder, i=i: write_evaluation(folder, i), {"run_id": "x"})
    return store


def write_evaluation(folder: Path, i: int) -> None:
    for name in ("report.json", "predictions.jsonl", "confusion_matrix.png"):
        (folder / name).write_bytes(random.Random(f"{name}{i}").randbytes(2000))


@pytest.fixture
def store(pristine: Store, tmp_path: Path) -> Store:
    shutil.copytree(pristine.root, tmp_path / "store")
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def keys_of(store: Store, kind: str) -> list[str]:
    prefix = {"checkpoint": "runs/sweep/0/checkpoints", "evaluation": "runs/sweep/0/evaluation"}.get(kind, f"{kind}s")
    return store.list(prefix)


# --- what can happen to a bundle, and to its neighbour --------------------------------------------------------


def flip_a_bit(bundle: Path, other: Path, rng: random.Random) -> None:
    change_a_bit(any_file(bundle, rng), rng)


def truncate(bundle: Path, other: Path, rng: random.Random) -> None:
    file = any_file(bundle, rng)
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def append(bundle: Path, other: Path, rng: random.Random) -> None:
    file = any_file(bundle, rng)
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randint(1, 100)))


def invert_a_page(bundle: Path, other: Path, rng: random.Random) -> None:
    file = any_file(bundle, rng)
    raw = bytearray(file.read_bytes())
    start = rng.randrange(len(raw))
    raw[start : start + 4096] = bytes(byte ^ 0xFF for byte in raw[start : start + 4096])
    file.write_bytes(raw)


def delete(bundle: Path, other: Path, rng: random.Random) -> None:
    any_file(bundle, rng).unlink()


def swap_a_file(bundle: Path, other: Path, rng: random.Random) -> None:
    names = [f.name for f in files_of(bundle) if (other / f.name).read_bytes() != f.read_bytes()]
    swap(bundle / (name := rng.choice(names)), other / name)


def swap_the_manifests(bundle: Path, other: Path, rng: random.Random) -> None:
    swap(bundle / MANIFEST, other / MANIFEST)


def swap_the_folders(bundle: Path, other: Path, rng: random.Random) -> None:
    swap(bundle, other)


def tear_the_manifest(bundle: Path, other: Path, rng: random.Random) -> None:
    manifest = bundle / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[: rng.randrange(manifest.stat().st_size)])


def flip_a_bit_of_the_manifest(bundle: Path, other: Path, rng: random.Random) -> None:
    change_a_bit(bundle / MANIFEST, rng)


def files_of(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.iterdir() if path.name != MANIFEST)


def any_file(bundle: Path, rng: random.Random) -> Path:
    return rng.choice(files_of(bundle))


def change_a_bit(file: Path, rng: random.Random) -> None:
    raw = bytearray(file.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    file.write_bytes(raw)


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


DAMAGES: list[Callable[[Path, Path, random.Random], None]] = [
    flip_a_bit,
    truncate,
    append,
    invert_a_page,
    delete,
    swap_a_file,
    swap_the_manifests,
    swap_the_folders,
    tear_the_manifest,
    flip_a_bit_of_the_manifest,
]
assert PLACES_PER_CASE * len(KINDS) * len(DAMAGES) >= 100


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_noticed_and_makes_room_for_the_same_bundle(
    store: Store, pristine: Store, kind: str, damage: Callable[[Path, Path, random.Random], None]
) -> None:
    for seed in range(PLACES_PER_CASE):
        rng = random.Random(f"{kind} {damage.__name__} {seed}")
        keys = keys_of(pristine, kind)
        assert len(keys) == 2
        key, neighbour = rng.sample(keys, 2)
        good = pristine.find(key)
        assert good is not None
        damage(Path(store.root) / key, Path(store.root) / neighbour, rng)

        with pytest.raises(CorruptError):
            store.fetch(key)
        with pytest.raises(CorruptError):
            store.fetch(key, digest=good.digest)
        notes: list[str] = []
        assert store.find_intact(key, notes.append) is None
        assert store.find(key) is None
        assert all(key in note for note in notes)

        for each in (key, neighbour):  # both, where they were swapped
            store.find_intact(each, notes.append)
            source = pristine.fetch(each)
            store.publish(each, lambda folder, source=source: copy(source, folder), meta_of(pristine, each))
            assert store.find(each) == pristine.find(each)
            store.fetch(each)


def copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / MANIFEST).unlink()


def meta_of(store: Store, key: str) -> dict[str, object]:
    bundle = store.find(key)
    assert bundle is not None
    return bundle.meta
