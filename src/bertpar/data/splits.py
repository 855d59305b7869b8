"""From checked examples to three splits that share no text: pure, and independent of the rows' order.

Each example has a rank: the hash of (split_seed, its text, its label). A split is cut, and a subset is taken,
by smallest rank within each label. So the same rows in another order give the same splits, a larger
`train_size` contains the smaller one, and one row more or less moves (nearly) nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

from bertpar.data.examples import Examples
from bertpar.errors import DataError
from bertpar.spec import SPLITS, DataSpec, Split

_PRECEDENCE: tuple[Split, ...] = ("test", "validation", "train")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split: which rows of which source table, in the table's order."""

    examples: Examples
    indices: list[int]


def make_splits(given: dict[Split, Examples], data: DataSpec) -> tuple[dict[Split, Part], list[str]]:
    """Return train, validation and test without duplicates, cut and subset as `data` says, and notes.

    - Within a split, of equal texts with equal labels the first is kept; equal texts with different labels
      are all left out: nobody can say which label is right.
    - Between splits that the source has, test wins over validation, and validation over train.
    - A split that the source lacks is cut from the training rows, its fraction of them from each class.

    Raises:
        DataError: an empty split, fewer than two classes, a label that training never sees, a size larger
            than what there is.
    """
    notes: list[str] = []
    parts: dict[Split, Part] = {}
    taken: set[str] = set()
    for split in _PRECEDENCE:
        if split in given:
            parts[split] = _without_duplicates(given[split], split, taken, notes)
            taken.update(given[split].keys[i] for i in parts[split].indices)
    _check_labels(parts, data)
    ranks = {i: _rank(parts["train"], i, data.split_seed) for i in parts["train"].indices}
    num_rows = len(parts["train"].indices)
    fractions = {"test": data.test_fraction, "validation": data.validation_fraction}
    for split in _PRECEDENCE:
        if split not in parts:
            parts[split], parts["train"] = _cut(parts["train"], ranks, split, fractions[split], num_rows)
    sizes = {"train": data.train_size, "validation": data.validation_size, "test": data.test_size}
    if problems := [p for split in SPLITS if (p := _size_problem(parts[split], split, sizes[split], data)) is not None]:
        raise DataError("\n".join(problems))
    return {split: _subset(parts[split], split, sizes[split], data) for split in SPLITS}, notes


def label_names(part: Part) -> tuple[str, ...]:
    """Return the class names of a split in the order of their ids: by number where all are whole numbers."""
    names = {str(part.examples.labels[i]) for i in part.indices}
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def allocate(counts: dict[str, int], total: int, *, minimum: int = 0, spare: int = 0) -> dict[str, int]:
    """Share `total` among classes in proportion to `counts` (largest remainder).

    Each class gets at least `minimum` where it has that many, and leaves at least `spare` of its rows; the
    sum differs from `total` only where these limits leave no other way.
    """
    num_rows = sum(counts.values())
    quotas = {name: total * count / num_rows for name, count in counts.items()}
    caps = {name: max(count - spare, 0) for name, count in counts.items()}
    floors = {name: min(minimum, caps[name]) for name in counts}
    shares = {name: min(max(int(quotas[name]), floors[name]), caps[name]) for name in counts}
    names = sorted(counts)
    while (missing := total - sum(shares.values())) != 0:
        step = 1 if missing > 0 else -1
        open_names = [n for n in names if (shares[n] < caps[n] if step > 0 else shares[n] > floors[n])]
        if not open_names:
            break
        shares[max(open_names, key=lambda n: step * (quotas[n] - shares[n]))] += step
    return shares


def _without_duplicates(examples: Examples, split: Split, taken: set[str], notes: list[str]) -> Part:
    rows_by_key: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(examples.keys):
        rows_by_key[key].append(i)
    kept, repeated, conflicting, elsewhere = [], [], [], []
    for key, rows in rows_by_key.items():
        if key in taken:
            elsewhere += rows
        elif len({examples.labels[i] for i in rows}) > 1:
            conflicting += rows
        else:
            kept.append(rows[0])
            repeated += rows[1:]
    left_out = [
        f"{split}: left out, {reason}: {examples.describe(sorted(rows))}"
        for rows, reason in (
            (repeated, "repeats of an earlier example"),
            (conflicting, "equal texts with different labels"),
            (elsewhere, "texts that the test or validation split holds too"),
        )
        if rows
    ]
    if not kept:
        raise DataError("\n".join([*left_out, f"{examples.where}: so no example is left. Give other rows."]))
    notes += left_out
    return Part(examples=examples, indices=sorted(kept))


def _check_labels(parts: dict[Split, Part], data: DataSpec) -> None:
    train = parts["train"]
    known = set(label_names(train))
    column = f"column {data.label_column!r} (data.label_column={data.label_column})"
    if len(known) < 2:
        raise DataError(
            f"{train.examples.where}: {column} holds {next(iter(known))!r} in all {len(train.indices)} "
            "training examples; at least two different labels are needed. "
            "Choose another column, or add examples."
        )
    if data.task == "regression":
        return
    problems = []
    for split in ("validation", "test"):
        part = parts.get(split)
        unknown = [i for i in part.indices if part.examples.labels[i] not in known] if part else []
        if part and unknown:
            names = sorted({str(part.examples.labels[i]) for i in unknown})
            problems.append(
                f"{part.examples.where}: {column} has the label {', '.join(map(repr, names[:10]))} in "
                f"{part.examples.describe(unknown)}, which no training example has; training has: "
                f"{', '.join(map(repr, label_names(train)[:10]))}. Correct the label, or add "
                "training examples."
            )
    if problems:
        raise DataError("\n".join(problems))


def _rank(part: Part, i: int, split_seed: int) -> bytes:
    text = f"{split_seed}\0{part.examples.keys[i]}\0{part.examples.labels[i]}"
    return hashlib.sha256(text.encode()).digest()


def _cut(train: Part, ranks: dict[int, bytes], split: Split, fraction: float, num_rows: int) -> tuple[Part, Part]:
    """Take `fraction` of `num_rows` from `train`: return the new split and what is left."""
    total = round(fraction * num_rows)
    chosen = _choose(train, total, ranks, spare=1) if 0 < total < len(train.indices) else set()
    left = [i for i in train.indices if i not in chosen]
    if not chosen:
        raise DataError(
            f"data.{split}_fraction={fraction} of {num_rows} examples is {total}, which leaves {split} or "
            f"train empty ({len(train.indices)} are there). Use a fraction that gives both some, or "
            f"give the split: data.{split}_file=/path/to/{split}.csv"
        )
    cut = Part(examples=train.examples, indices=sorted(chosen))
    return cut, Part(examples=train.examples, indices=left)


def _size_problem(part: Part, split: Split, size: int | None, data: DataSpec) -> str | None:
    """Return why `size` examples cannot be taken from `part`; None if they can."""
    key = f"data.{split}_size"
    if size is None:
        return None
    if not 1 <= size <= len(part.indices):
        given = f"data.{split}_fraction" if split != "train" else "data.test_fraction and data.validation_fraction"
        return (
            f"{key}={size} must be between 1 and {len(part.indices)}, the examples that the {split} split has "
            f"({part.examples.where}). Take all with {key}=null, also where experiment=smoke or a data group set it; "
            f"or change {given} where the split is cut."
        )
    if _keeps_every_class(split, data) and size < (num_labels := len(label_names(part))):
        return f"{key}={size} is fewer than the {num_labels} labels. Use at least one of each."
    return None


def _keeps_every_class(split: Split, data: DataSpec) -> bool:
    return split == "train" and data.task == "classification"


def _subset(part: Part, split: Split, size: int | None, data: DataSpec) -> Part:
    if size is None:
        return part
    ranks = {i: _rank(part, i, data.split_seed) for i in part.indices}
    # A training subset keeps every class: validation and test may hold any of them.
    return Part(
        examples=part.examples, indices=sorted(_choose(part, size, ranks, minimum=int(_keeps_every_class(split, data))))
    )


def _choose(part: Part, total: int, ranks: dict[int, bytes], *, minimum: int = 0, spare: int = 0) -> set[int]:
    """Return `total` rows of `part`, stratified by label (strings), lowest ranks first."""
    labels = part.examples.labels
    rows_by_label: dict[str, list[int]] = defaultdict(list)
    for i in sorted(part.indices, key=ranks.__getitem__):
        label = labels[i]
        rows_by_label[label if isinstance(label, str) else ""].append(i)
    counts = Counter({label: len(rows) for label, rows in rows_by_label.items()})
    shares = allocate(counts, total, minimum=minimum, spare=spare)
    return {i for label, rows in rows_by_label.items() for i in rows[: shares[label]]}
