"""The comparer sees every bit: each kind of difference is made once, by hand, and found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bertpar.verify import Row, RunOutcome, Weights, differences, faults, read_weights

TENSORS = {"encoder.0": np.arange(6, dtype=np.float32).reshape(2, 3), "head": np.ones(4, dtype=np.float16)}
ROWS = tuple(sorted(Row(step=s, key=k, bits=(0.1 * s).hex()) for s in (4, 8) for k in ("train/loss", "val/loss")))
RUN = RunOutcome(
    run_id="sweep/0",
    statuses=("FINISHED",),
    rows=ROWS,
    weights={4: Weights({"a": "1", "b": "2"}), 8: Weights({"a": "3", "b": "4"})},
    best_step=4,
    num_evaluations=1,
    test_metrics={"test/accuracy": 0.75},
    predictions="5",
)


def weights_of(folder: Path, tensors: dict[str, np.ndarray]) -> Weights:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"written": folder.name})
    return read_weights(folder)


def test_equal_tensors_have_equal_digests_whatever_else_the_file_holds(tmp_path: Path) -> None:
    one, other = weights_of(tmp_path / "one", TENSORS), weights_of(tmp_path / "other", dict(reversed(TENSORS.items())))
    assert one == other
    assert one.digest == other.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"head": np.array([1, 1, 1, 1.001], dtype=np.float16)},
        {"head": np.ones((2, 2), dtype=np.float16)},
        {"head": np.ones(4, dtype=np.float32)},
        {"head": np.array([1, 1, 1, -0.0], dtype=np.float16) * 0},
    ],
    ids=["one value", "shape", "dtype", "sign of zero"],
)
def test_another_bit_shape_or_dtype_names_the_tensor(tmp_path: Path, changed: dict[str, np.ndarray]) -> None:
    one, other = weights_of(tmp_path / "one", TENSORS), weights_of(tmp_path / "other", TENSORS | changed)
    assert one.first_difference(other) == "head"
    assert one.digest != other.digest


def test_the_same_results_have_no_difference_and_the_same_digest() -> None:
    other = replace(RUN, run_id="another/3", configuration={"lr": "1"})
    assert differences(RUN, other) == []
    assert faults(RUN) == []
    assert RUN.digest == other.digest


def with_row(step: int, key: str, *bits: str) -> RunOutcome:
    others = [row for row in ROWS if (row.step, row.key) != (step, key)]
    return replace(RUN, rows=tuple(sorted([*others, *(Row(step=step, key=key, bits=b) for b in bits)])))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (with_row(4, "val/loss", (0.4000000000000001).hex()), "step 4: metric val/loss is 0.4 (0x1.999999999999ap-2)"),
        (with_row(8, "train/loss"), "step 8: metric train/loss is 0.8 (0x1.999999999999ap-1) against missing"),
        (with_row(9, "train/loss", "nan"), "step 9: metric train/loss is missing against nan (nan)"),
        (replace(RUN, weights={**RUN.weights, 8: Weights({"a": "3", "b": "9"})}), "step 8: weights differ, first in"),
        (replace(RUN, weights={4: RUN.weights[4]}), "last checkpoint: step 8 against 4"),
        (replace(RUN, best_step=8), "best checkpoint: step 4 against 8"),
        (replace(RUN, test_metrics={"test/accuracy": 0.7500000000000001}), "test/accuracy: 0.75"),
        (replace(RUN, predictions="6"), "test predictions: sha256 5 against 6"),
        (replace(RUN, statuses=("FAILED",)), "status in MLflow: FINISHED against FAILED"),
    ],
)
def test_every_kind_of_difference_is_told(other: RunOutcome, expected: str) -> None:
    (told,) = differences(RUN, other)
    assert told.startswith(expected)
    assert RUN.digest != other.digest


def test_the_earliest_difference_comes_first() -> None:
    late = with_row(8, "val/loss", "0x1p0")
    other = replace(late, weights={4: Weights({"a": "1", "b": "7"}), 8: Weights({"a": "8", "b": "7"})})
    assert differences(RUN, other)[0] == "step 4: weights differ, first in tensor b"


@pytest.mark.parametrize(
    ("dishonest", "expected"),
    [
        (replace(RUN, statuses=("FINISHED", "RUNNING")), "2 MLflow runs instead of one"),
        (replace(RUN, num_evaluations=2), "2 evaluations instead of one"),
        (replace(RUN, num_evaluations=0, best_step=None), "0 evaluations instead of one"),
        (replace(RUN, weights={8: RUN.weights[8]}), "the best checkpoint, of step 4, is not in the store"),
        (
            replace(RUN, weights={4: RUN.weights[4]}),
            "step 8 has metric rows, but the store's last checkpoint is of step 4",
        ),
        (replace(RUN, torn_steps=(8,)), "step 8: two attempts made checkpoints with different weights"),
        (with_row(8, "val/loss", (0.8).hex(), (0.8).hex()), "step 8: metric val/loss is logged 2 times"),
    ],
)
def test_what_is_wrong_with_one_run_by_itself_is_told_too(dishonest: RunOutcome, expected: str) -> None:
    (told,) = faults(dishonest)
    assert told.startswith(expected)
