from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from bertpar.evaluation.metrics import (
    accuracy_interval,
    classification_metrics,
    confusion_counts,
    pearson_interval,
    per_class_table,
    regression_metrics,
    softmax,
)
from bertpar.metric_names import METRICS, main_metric, monitored_metrics

# true 0: 2 of 3 found; true 1: 1 of 2 found; true 2: 1 of 1 found
LABELS_N = np.array([0, 0, 0, 1, 1, 2])
PREDICTED_N = np.array([0, 0, 1, 1, 2, 2])


def logits_for(predicted_N: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[predicted_N]


def test_accuracy_macro_f1_and_mcc_equal_values_computed_by_hand() -> None:
    metrics = classification_metrics(logits_for(PREDICTED_N, 3), LABELS_N)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    # F1: class 0 2*2/(2+3)=.8, class 1 2*1/(2+2)=.5, class 2 2*1/(2+1)=2/3
    assert metrics["macro_f1"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    # Gorodkin: (c*s - sum p*t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) with c=4, s=6, t=(3,2,1), p=(2,2,2)
    assert metrics["mcc"] == pytest.approx((4 * 6 - (6 + 4 + 2)) / math.sqrt((36 - 12) * (36 - 14)))


def test_binary_mcc_equals_the_formula_on_the_four_cells() -> None:
    labels_N = np.array([1] * 6 + [0] * 4)
    predicted_N = np.array([1] * 5 + [0] + [0] * 2 + [1] * 2)  # TP 5, FN 1, TN 2, FP 2
    mcc = classification_metrics(logits_for(predicted_N, 2), labels_N)["mcc"]
    assert mcc == pytest.approx((5 * 2 - 2 * 1) / math.sqrt((5 + 2) * (5 + 1) * (2 + 2) * (2 + 1)))


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    logits_NC = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype=np.float32))
    loss = classification_metrics(logits_NC, np.array([0, 1]))["loss"]
    assert loss == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2, rel=1e-6)


def test_loss_stays_finite_for_huge_logits() -> None:
    metrics = classification_metrics(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0]))
    assert metrics["loss"] == pytest.approx(1e4)


def test_a_model_that_always_says_one_class_has_mcc_zero_and_finite_metrics() -> None:
    metrics = classification_metrics(logits_for(np.zeros(4, dtype=int), 2), np.array([0, 0, 1, 1]))
    assert metrics["mcc"] == 0
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert all(map(math.isfinite, metrics.values()))


def test_a_class_that_nobody_has_or_predicts_does_not_lower_macro_f1() -> None:
    labels_N = np.array([0, 1, 0, 1])
    assert classification_metrics(logits_for(labels_N, 5), labels_N)["macro_f1"] == 1


def test_regression_metrics_equal_values_computed_by_hand() -> None:
    metrics = regression_metrics(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    assert metrics["loss"] == pytest.approx((0 + 1 + 4) / 3)
    # deviations (-4/3, -1/3, 5/3) and (-1, 1, 0): covariance 1, squares 14/3 and 2
    assert metrics["pearson"] == pytest.approx(1 / math.sqrt(14 / 3 * 2))
    assert metrics["spearman"] == pytest.approx(0.5)  # 1 - 6*(0+1+1)/(3*8)


def test_spearman_gives_tied_values_their_mean_rank() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0, 40.0])
    ranks_x, ranks_y = np.array([1, 2.5, 2.5, 4]), np.array([1, 2, 3, 4])
    assert regression_metrics(x, y)["spearman"] == pytest.approx(np.corrcoef(ranks_x, ranks_y)[0, 1])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_correlation_with_a_constant_is_zero_not_nan(value: float) -> None:
    metrics = regression_metrics(np.full(7, value), np.arange(7.0))
    assert metrics["pearson"] == 0
    assert metrics["spearman"] == 0


def test_equal_input_gives_equal_bits() -> None:
    rng = np.random.default_rng(3)
    logits_NC, labels_N = rng.normal(size=(501, 4)).astype(np.float32), rng.integers(4, size=501)
    scores_N, targets_N = rng.normal(size=501), rng.normal(size=501)
    assert classification_metrics(logits_NC, labels_N) == classification_metrics(logits_NC.copy(), labels_N)
    assert regression_metrics(scores_N, targets_N) == regression_metrics(scores_N.copy(), targets_N)
    assert pearson_interval(scores_N, targets_N) == pearson_interval(scores_N, targets_N)
    assert accuracy_interval(400, 501) == accuracy_interval(400, 501)


def test_per_class_table_keeps_the_order_of_names_and_scores_absent_classes_zero() -> None:
    rows = per_class_table(PREDICTED_N, LABELS_N, ["good", "fair", "bad", "none"])
    assert [row.label for row in rows] == ["good", "fair", "bad", "none"]
    assert (rows[0].precision, rows[0].recall, rows[0].support) == (1.0, pytest.approx(2 / 3), 3)
    assert (rows[2].precision, rows[2].recall) == (0.5, 1.0)
    assert (rows[3].precision, rows[3].recall, rows[3].f1, rows[3].support) == (0, 0, 0, 0)


def test_confusion_counts_have_labels_as_rows() -> None:
    counts_CC = confusion_counts(PREDICTED_N, LABELS_N, 3)
    assert counts_CC.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_softmax_rows_sum_to_one_even_for_huge_logits() -> None:
    probabilities_NC = softmax(np.array([[1000.0, 1000.0], [0.0, math.log(3)]]))
    assert probabilities_NC == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))


def test_accuracy_interval_agrees_with_the_normal_approximation() -> None:
    low, high = accuracy_interval(800, 1000)
    half_width = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert low == pytest.approx(0.8 - half_width, abs=0.004)
    assert high == pytest.approx(0.8 + half_width, abs=0.004)


def test_accuracy_interval_covers_the_true_accuracy_in_about_95_of_100_samples() -> None:
    hits = np.random.default_rng(0).binomial(400, 0.75, size=400)
    intervals = [accuracy_interval(int(hit), 400, seed=i) for i, hit in enumerate(hits)]
    covered = sum(low <= 0.75 <= high for low, high in intervals)
    assert 0.92 <= covered / 400 <= 0.98


def test_accuracy_interval_of_a_perfect_score_has_no_width() -> None:
    assert accuracy_interval(50, 50) == (1.0, 1.0)
    assert accuracy_interval(0, 50) == (0.0, 0.0)


def test_pearson_interval_agrees_with_fishers_transformation() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=800)
    y = 0.6 * x + 0.8 * rng.normal(size=800)
    r = regression_metrics(x, y)["pearson"]
    low, high = pearson_interval(x, y)
    width = 1.96 / math.sqrt(797)
    assert low == pytest.approx(math.tanh(math.atanh(r) - width), abs=0.02)
    assert high == pytest.approx(math.tanh(math.atanh(r) + width), abs=0.02)


def test_pearson_interval_is_finite_for_a_constant_and_for_two_examples() -> None:
    assert pearson_interval(np.zeros(5), np.arange(5.0)) == (0.0, 0.0)
    assert all(map(math.isfinite, pearson_interval(np.array([0.0, 1.0]), np.array([1.0, 2.0]))))


def test_validation_logs_what_a_checkpoint_may_be_chosen_by() -> None:
    computed = classification_metrics(logits_for(PREDICTED_N, 3), LABELS_N)
    assert tuple(computed) == METRICS["classification"]
    assert tuple(regression_metrics(np.arange(3.0), np.arange(3.0))) == METRICS["regression"]
    assert monitored_metrics("regression") == ("val/loss", "val/pearson", "val/spearman")
    assert main_metric("classification") == "accuracy"


def test_metrics_and_tracking_import_no_heavy_library() -> None:
    code = (
        "import sys, bertpar.metric_names, bertpar.tracking, bertpar.evaluation.metrics; "
        "print([m for m in ('torch', 'sklearn', 'scipy', 'mlflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
