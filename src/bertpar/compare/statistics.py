"""Is one configuration better than another? Pure functions of arrays; equal input gives equal bits.

What is compared are the outputs of two configurations for the same test examples, from one or several training
seeds each. See docs/compare.md for the reasons.
Shapes: N test examples, S seeds of one configuration, R resamples.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993. Holm, Scandinavian Journal of Statistics 6, 1979.
McNemar, Psychometrika 12, 1947. Student, The probable error of a mean, Biometrika 6, 1908.
Dror et al., The Hitchhiker's Guide to Testing Statistical Significance in NLP, ACL 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

BOOTSTRAP_SEED = 0
NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
_COUNTS_AT_ONCE = 4_000_000  # numbers: 32 MB per array
_ALIKE_FROM = 5
"""So many examples of a kind, on average, and it is quicker to draw their number than each of them."""
_DIGITS = 12
"""Of differences, behind the point: two equal means stay equal, whatever the order of their summation."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Which test examples a configuration's runs get right: a classification."""

    seeds: tuple[int, ...]
    hits_NS: BoolArray

    def metric_S(self) -> FloatArray:
        """Return the accuracy of each seed's run."""
        means: FloatArray = self.hits_NS.mean(axis=0)
        return means


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a configuration's runs predict for the test examples: a regression."""

    seeds: tuple[int, ...]
    scores_NS: FloatArray
    labels_N: FloatArray

    def metric_S(self) -> FloatArray:
        """Return Pearson's r of each seed's run; 0 where one side is constant."""
        everything_1N = np.ones((1, len(self.labels_N)))
        one: FloatArray = _pearson(everything_1N, self.scores_NS, self.labels_N)[0]
        return one


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The test metric of one configuration minus that of another, both being means over their seeds."""

    difference: float
    low: float
    high: float
    """Bounds of the percentile interval of CONFIDENCE (Efron & Tibshirani 1993, ch. 13)."""
    p_bootstrap: float
    """Two-sided: twice the share of resamples on the smaller side of 0, ties on both (ibid., ch. 15)."""
    p_mcnemar: float | None
    """Exact, two-sided (McNemar 1947); None unless both are classifications with one seed each."""
    seeds_paired: bool
    """The same seeds on both sides: their variation is that of the differences by seed."""

    @property
    def p_value(self) -> float:
        """McNemar's where there is one, else the bootstrap's."""
        return self.p_bootstrap if self.p_mcnemar is None else self.p_mcnemar


def paired_difference(one: Hits | Scores, other: Hits | Scores, *, seed: int = BOOTSTRAP_SEED) -> PairedDifference:
    """Return `one` minus `other` with its uncertainty, from NUM_RESAMPLES resamples.

    Each resample draws N examples with replacement, the same ones for all runs of both sides. To its difference comes
    what other seeds would have changed: a Student's t variate of S - 1 degrees of freedom times the standard error of
    the mean over seeds, one for the differences by seed where both sides have the same seeds, else one for each side.
    Drawing seeds with replacement instead would find two equal configurations of two seeds each different in every
    second case: all draws are on one side of 0 whenever both differences are.
    """
    difference = round(float(one.metric_S().mean() - other.metric_S().mean()), _DIGITS)
    rng = np.random.default_rng(seed)
    values_RS, other_RS = _resampled_metrics(one, other, rng)
    seeds_paired = sorted(one.seeds) == sorted(other.seeds)
    differences_R = values_RS.mean(axis=1) - other_RS.mean(axis=1) + _seed_noise(one, other, seeds_paired, rng)
    largest = 1.0 if isinstance(one, Hits) else 2.0  # accuracies differ by 1 at most, correlations by 2
    differences_R = np.clip(np.round(differences_R, _DIGITS), -largest, largest)
    low, high = _percentiles(differences_R)
    return PairedDifference(
        difference=difference,
        low=low,
        high=high,
        p_bootstrap=_two_sided_p(differences_R),
        p_mcnemar=_mcnemar_of(one, other),
        seeds_paired=seeds_paired,
    )


def mcnemar_exact(num_only_one: int, num_only_other: int) -> float:
    """Return the exact two-sided p of McNemar's test, from the examples that only one of two models gets right.

    Under the hypothesis each of them is as likely to be the one's as the other's: a binomial with p = 1/2.
    """
    from scipy.special import bdtr

    num_discordant = num_only_one + num_only_other
    if num_discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(num_only_one, num_only_other), num_discordant, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number by Holm's step-down method (1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def spread(values: Sequence[float]) -> float | None:
    """Return the standard deviation over seeds, with S - 1 in the denominator; None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


# --- resampling -------------------------------------------------------------------------------------------


def _resampled_metrics(
    one: Hits | Scores, other: Hits | Scores, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the metric of every run in every resample of the examples, [R, S] for both sides."""
    if isinstance(one, Hits) and isinstance(other, Hits):
        # Examples with which all runs fare alike are exchangeable: their number in a resample is drawn at once.
        both_NS = np.concatenate([one.hits_NS, other.hits_NS], axis=1)
        patterns, frequencies = np.unique(both_NS, axis=0, return_counts=True)
        num_examples = len(both_NS)
        values_RS = _each_resample(rng, frequencies, lambda counts: counts @ patterns / num_examples)
    elif isinstance(one, Scores) and isinstance(other, Scores):
        scores_NS = np.concatenate([one.scores_NS, other.scores_NS], axis=1)
        labels_N = one.labels_N
        each = np.ones(len(labels_N), np.int64)
        values_RS = _each_resample(rng, each, lambda counts: _pearson(counts, scores_NS, labels_N))
    else:
        raise TypeError("a classification and a regression cannot be compared")
    return values_RS[:, : len(one.seeds)], values_RS[:, len(one.seeds) :]


def _each_resample(
    rng: np.random.Generator, frequencies: npt.NDArray[Any], metric: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    return np.concatenate([metric(counts) for counts in _draw_counts(rng, frequencies)])


def _draw_counts(rng: np.random.Generator, frequencies: npt.NDArray[Any]) -> Iterator[FloatArray]:
    """Yield, some resamples at a time, how often each kind of example is drawn: [r, number of kinds]."""
    total, num_kinds = int(frequencies.sum()), len(frequencies)
    few_alike = _ALIKE_FROM * num_kinds >= total
    kinds_N = np.repeat(np.arange(num_kinds), frequencies) if few_alike else np.arange(0)
    at_once = max(1, _COUNTS_AT_ONCE // (total if few_alike else num_kinds))
    for start in range(0, NUM_RESAMPLES, at_once):
        num = min(at_once, NUM_RESAMPLES - start)
        if few_alike:
            drawn = kinds_N[rng.integers(total, size=(num, total))] + num_kinds * np.arange(num)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=num * num_kinds).reshape(num, num_kinds)
        else:
            counts = rng.multinomial(total, frequencies / total, size=num)
        yield counts.astype(np.float64)


def _seed_noise(one: Hits | Scores, other: Hits | Scores, paired: bool, rng: np.random.Generator) -> FloatArray:
    """Return by how much the difference of the means would vary with other seeds, as far as the seeds tell: [R]."""
    one_S, other_S = one.metric_S()[np.argsort(one.seeds)], other.metric_S()[np.argsort(other.seeds)]
    samples = [one_S - other_S] if paired else [one_S, other_S]
    noise_R = np.zeros(NUM_RESAMPLES)
    for values_S in samples:
        if len(values_S) > 1:
            standard_error = values_S.std(ddof=1) / np.sqrt(len(values_S))
            noise_R += standard_error * rng.standard_t(len(values_S) - 1, size=NUM_RESAMPLES)
    return noise_R


def _pearson(weights_RN: FloatArray, scores_NS: FloatArray, labels_N: FloatArray) -> FloatArray:
    """Return the weighted correlation [R, S]; 0 where one side is constant."""
    x_NS, y_N1 = scores_NS - scores_NS.mean(axis=0), (labels_N - labels_N.mean())[:, None]
    total_R1 = weights_RN.sum(axis=1, keepdims=True)
    mean_x, mean_y = weights_RN @ x_NS / total_R1, weights_RN @ y_N1 / total_R1
    covariance = weights_RN @ (x_NS * y_N1) / total_R1 - mean_x * mean_y
    variance_x = weights_RN @ x_NS**2 / total_R1 - mean_x**2
    variance_y = weights_RN @ y_N1**2 / total_R1 - mean_y**2
    scale = np.sqrt(np.clip(variance_x, 0, None) * np.clip(variance_y, 0, None))
    constant = scale <= 1e-12 * (x_NS.std(axis=0) * y_N1.std() + 1e-300)  # a rounding error is no variance
    r: FloatArray = np.where(constant, 0.0, np.clip(covariance / np.where(constant, 1.0, scale), -1.0, 1.0))
    return r


def _mcnemar_of(one: Hits | Scores, other: Hits | Scores) -> float | None:
    if not (isinstance(one, Hits) and isinstance(other, Hits)) or (len(one.seeds), len(other.seeds)) != (1, 1):
        return None
    a_N, b_N = one.hits_NS[:, 0], other.hits_NS[:, 0]
    return mcnemar_exact(int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum()))


def _two_sided_p(differences_R: FloatArray) -> float:
    # One is added to each count: an estimate from R resamples cannot be 0.
    below, above = int((differences_R <= 0).sum()), int((differences_R >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences_R) + 1))


def _percentiles(values_R: FloatArray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values_R, [tail, 100 - tail])
    return float(low), float(high)
