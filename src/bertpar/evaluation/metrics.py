"""What a model's outputs are worth: pure functions of arrays; equal input gives equal bits.

numpy alone is imported here, scikit-learn and scipy inside the functions. Finite input gives finite results.
Shapes: N examples, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
_RESAMPLED_AT_ONCE = 2_000_000  # examples: 16 MB per array


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How one class fares. Precision, recall and F1 are 0 where they are undefined (0/0)."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    """Examples that have this label."""


def softmax(logits_NC: FloatArray) -> npt.NDArray[np.float64]:
    """Return probabilities [N, C] in float64; each row sums to 1."""
    shifted_NC = np.asarray(logits_NC, dtype=np.float64)
    shifted_NC = np.exp(shifted_NC - shifted_NC.max(axis=1, keepdims=True))
    probabilities_NC: npt.NDArray[np.float64] = shifted_NC / shifted_NC.sum(axis=1, keepdims=True)
    return probabilities_NC


def classification_metrics(logits_NC: FloatArray, labels_N: IntArray) -> dict[str, float]:
    """Return loss, accuracy, macro_f1 and mcc.

    loss: mean cross-entropy in nats. macro_f1: the unweighted mean of F1 over the classes that occur among
    labels or predictions. mcc: Matthews' correlation for C classes (Gorodkin, 2004), 0 where labels or
    predictions are all one class.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    predicted_N = logits_NC.argmax(axis=1)
    return {
        "loss": _cross_entropy(logits_NC, labels_N),
        "accuracy": float(np.mean(predicted_N == labels_N)),
        "macro_f1": float(f1_score(labels_N, predicted_N, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(labels_N, predicted_N)),
    }


def regression_metrics(scores_N: FloatArray, labels_N: FloatArray) -> dict[str, float]:
    """Return loss (mean squared error), pearson and spearman.

    A correlation with a constant is undefined; it counts as 0: MLflow and rankings need a number.
    """
    from scipy.stats import rankdata

    x_N, y_N = np.asarray(scores_N, np.float64), np.asarray(labels_N, np.float64)
    return {
        "loss": float(np.mean((x_N - y_N) ** 2)),
        "pearson": float(_pearson(x_N, y_N)),
        "spearman": float(_pearson(rankdata(x_N), rankdata(y_N))),
    }


def per_class_table(predicted_N: IntArray, labels_N: IntArray, label_names: Sequence[str]) -> list[ClassScores]:
    """Return one row per class, in the order of `label_names`."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(labels_N, predicted_N, labels=range(len(label_names)), zero_division=0)
    return [
        ClassScores(label=name, precision=float(p), recall=float(r), f1=float(f), support=int(n))
        for name, p, r, f, n in zip(label_names, *columns, strict=True)
    ]


def confusion_counts(predicted_N: IntArray, labels_N: IntArray, num_classes: int) -> npt.NDArray[np.int64]:
    """Return counts [C, C]: row = label, column = prediction."""
    cells_N = labels_N.astype(np.int64) * num_classes + predicted_N
    return np.bincount(cells_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy_interval(num_correct: int, num_examples: int, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of an accuracy, from NUM_RESAMPLES resamples.

    The number of hits among N examples drawn with replacement is binomial, so it is drawn directly. With no
    error, or nothing but errors, the interval has no width: resampling cannot show what did not occur.
    """
    hits_R = np.random.default_rng(seed).binomial(num_examples, num_correct / num_examples, NUM_RESAMPLES)
    return _percentiles(hits_R / num_examples)


def pearson_interval(scores_N: FloatArray, labels_N: FloatArray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of Pearson's r, from NUM_RESAMPLES resamples."""
    x_N, y_N = np.asarray(scores_N, np.float64), np.asarray(labels_N, np.float64)
    num_examples = len(x_N)
    rng = np.random.default_rng(seed)
    at_once = max(1, _RESAMPLED_AT_ONCE // num_examples)
    correlations: list[npt.NDArray[np.float64]] = []
    for start in range(0, NUM_RESAMPLES, at_once):
        chosen_RN = rng.integers(num_examples, size=(min(at_once, NUM_RESAMPLES - start), num_examples))
        correlations.append(_pearson(x_N[chosen_RN], y_N[chosen_RN]))
    return _percentiles(np.concatenate(correlations))


def _cross_entropy(logits_NC: FloatArray, labels_N: IntArray) -> float:
    logits_NC = np.asarray(logits_NC, dtype=np.float64)
    highest_N = logits_NC.max(axis=1)
    log_sum_N = highest_N + np.log(np.exp(logits_NC - highest_N[:, None]).sum(axis=1))
    return float(np.mean(log_sum_N - logits_NC[np.arange(len(labels_N)), labels_N]))


def _pearson(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the correlation along the last axis; 0 where one side is constant."""
    constant = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    r = (x * y).sum(axis=-1) / np.where(constant, 1.0, scale)
    return np.where(constant, 0.0, np.clip(r, -1.0, 1.0))


def _percentiles(values_R: npt.NDArray[np.float64]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values_R, [tail, 100 - tail])
    return float(low), float(high)
