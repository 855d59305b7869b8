"""The statistics of a comparison on cases whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from bertpar.compare.statistics import NUM_RESAMPLES, Hits, Scores, holm, mcnemar_exact, paired_difference, spread


def hits(*runs: list[int], seeds: tuple[int, ...] | None = None) -> Hits:
    return Hits(seeds=seeds or tuple(range(len(runs))), hits_NS=np.array(runs, dtype=bool).T)


def test_mcnemars_p_is_that_of_the_binomial_by_hand() -> None:
    # 1 against 8 of 9: twice (C(9,0) + C(9,1)) / 2^9 = 20 / 512
    assert mcnemar_exact(1, 8) == pytest.approx(20 / 512)
    assert mcnemar_exact(8, 1) == mcnemar_exact(1, 8)
    # 0 against 5 of 5: twice 1 / 2^5
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_holm_steps_down_and_keeps_the_order_given() -> None:
    # sorted .01 .02 .03 .04: 4x, 3x, 2x, 1x = .04 .06 .06 .04, each at least the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_identical_predictions_differ_by_exactly_nothing(num_seeds: int) -> None:
    rng = np.random.default_rng(1)
    same = hits(*rng.integers(2, size=(num_seeds, 50)).tolist())
    found = paired_difference(same, same)
    assert (found.difference, found.low, found.high, found.p_bootstrap, found.p_value) == (0.0, 0.0, 0.0, 1.0, 1.0)


def test_identical_scores_differ_by_exactly_nothing_even_where_a_product_rounds() -> None:
    rng = np.random.default_rng(1)
    labels_N = rng.normal(size=1000)
    scores_NS = (labels_N + rng.normal(size=1000))[:, None]
    same = Scores(seeds=(1,), scores_NS=scores_NS, labels_N=labels_N)
    found = paired_difference(same, same)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_equal_means_differ_by_nothing_whatever_the_order_of_their_summation() -> None:
    runs = [[1] * n + [0] * (10 - n) for n in (1, 2, 3)]
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert paired_difference(hits(*runs), hits(*runs[::-1], seeds=(7, 8, 9))).difference == 0.0


def test_a_known_difference_has_its_interval_and_mcnemars_p() -> None:
    # 100 examples: 80 both right, 10 both wrong, 9 only one, 1 only the other
    one = hits([1] * 80 + [0] * 10 + [1] * 9 + [0])
    other = hits([1] * 80 + [0] * 10 + [0] * 9 + [1])
    found = paired_difference(one, other)
    assert found.difference == pytest.approx(0.08)
    assert found.p_mcnemar == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.p_value == found.p_mcnemar
    # the difference's standard error is sqrt((.10 - .08^2) / 100) = .0306
    assert found.low == pytest.approx(0.08 - 1.96 * 0.0306, abs=0.011)
    assert found.high == pytest.approx(0.08 + 1.96 * 0.0306, abs=0.011)


def test_the_same_question_has_the_same_answer_and_the_mirrored_one_its_mirror() -> None:
    rng = np.random.default_rng(2)
    one, other = hits(rng.integers(2, size=200).tolist()), hits(rng.integers(2, size=200).tolist())
    assert paired_difference(one, other) == paired_difference(one, other)
    assert paired_difference(one, other).difference == -paired_difference(other, one).difference


def test_the_spread_over_seeds_widens_the_interval() -> None:
    base = [1] * 50 + [0] * 50
    steady = hits(base, base, base)
    erratic = hits([1] * 70 + [0] * 30, base, [1] * 30 + [0] * 70, seeds=(7, 8, 9))
    narrow, wide = paired_difference(steady, steady), paired_difference(erratic, steady)
    assert narrow.high - narrow.low == 0
    assert wide.high - wide.low > 0.2
    assert not wide.seeds_paired


def test_where_seeds_alone_vary_the_interval_is_that_of_students_t() -> None:
    # All examples alike, the runs of three seeds right in 50, 60 and 70 %: standard error .1 / sqrt(3), t(2) = 4.303.
    one = hits(*[[1] * n + [0] * (1000 - n) for n in (500, 600, 700)])
    other = hits(*[[1] * 600 + [0] * 400] * 3)
    found = paired_difference(one, other)
    half = 4.303 * 0.1 / 3**0.5
    assert (found.low, found.high) == (pytest.approx(-half, rel=0.05), pytest.approx(half, rel=0.05))


@pytest.mark.parametrize("seeds", [(1, 2), (8, 9)])
def test_two_seeds_of_equal_configurations_are_seldom_found_different(seeds: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    num_tries, num_claims = 100, 0
    for _ in range(num_tries):
        counts = (1000 + 100 * rng.normal(size=4)).astype(int)
        runs = [[1] * n + [0] * (2000 - n) for n in counts]
        found = paired_difference(hits(*runs[:2], seeds=(1, 2)), hits(*runs[2:], seeds=seeds))
        num_claims += found.p_value < 0.05
    assert num_claims / num_tries <= 0.08


def test_the_same_seeds_are_pairs_whatever_their_order() -> None:
    a, b = [1] * 9 + [0], [1] + [0] * 9
    found = paired_difference(hits(a, b, seeds=(1, 2)), hits(b, a, seeds=(2, 1)))
    assert found.seeds_paired
    assert (found.low, found.high) == (0.0, 0.0)


def test_an_interval_stays_within_what_is_possible() -> None:
    found = paired_difference(hits([1] * 10, [0] * 10, seeds=(1, 2)), hits([0] * 10, [1] * 10, seeds=(3, 4)))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    num_tries = 200
    for _ in range(num_tries):
        u, v = rng.random((2, 200))
        one, other = u < 0.8, np.where(v < 0.7, u < 0.8, rng.random(200) < 0.7)  # correlated; truth: .3 * (.8 - .7)
        found = paired_difference(hits(one.tolist()), hits(other.tolist()))
        covered += found.low <= 0.03 <= found.high
    assert 0.91 <= covered / num_tries <= 0.985


def test_the_interval_over_seeds_covers_the_truth_at_least_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    num_tries = 60
    for _ in range(num_tries):
        # an example is got right by a training whose skill exceeds its difficulty; skills vary around .70 and .65
        difficulty = rng.random(100)
        skills = [rng.normal(mean, 0.02) for mean in [0.70] * 5 + [0.65] * 5]
        runs = [(difficulty + 0.05 * rng.normal(size=100) < skill).tolist() for skill in skills]
        one, other = hits(*runs[:5], seeds=(1, 2, 3, 4, 5)), hits(*runs[5:], seeds=(6, 7, 8, 9, 10))
        found = paired_difference(one, other)
        covered += found.low <= 0.05 <= found.high
    assert covered / num_tries >= 0.92


def test_a_regressions_difference_is_that_of_the_correlations() -> None:
    rng = np.random.default_rng(5)
    labels_N = rng.normal(size=300)
    close = labels_N + 0.3 * rng.normal(size=300)
    far = labels_N + 2.0 * rng.normal(size=300)
    one = Scores(seeds=(1,), scores_NS=close[:, None], labels_N=labels_N)
    other = Scores(seeds=(1,), scores_NS=far[:, None], labels_N=labels_N)
    found = paired_difference(one, other)
    expected = np.corrcoef(close, labels_N)[0, 1] - np.corrcoef(far, labels_N)[0, 1]
    assert found.difference == pytest.approx(expected)
    assert 0 < found.low < expected < found.high
    assert found.p_mcnemar is None
    assert found.p_value == pytest.approx(2 / (NUM_RESAMPLES + 1))


def test_a_constant_score_has_no_correlation() -> None:
    labels_N = np.linspace(0, 1, 20)
    constant = Scores(seeds=(1,), scores_NS=np.full((20, 1), 0.1), labels_N=labels_N)
    exact = Scores(seeds=(1,), scores_NS=labels_N[:, None], labels_N=labels_N)
    assert constant.metric_S().tolist() == [0.0]
    assert paired_difference(exact, constant).difference == pytest.approx(1.0)


def test_a_classification_and_a_regression_are_not_compared() -> None:
    scores = Scores(seeds=(1,), scores_NS=np.zeros((2, 1)), labels_N=np.zeros(2))
    with pytest.raises(TypeError, match="cannot be compared"):
        paired_difference(hits([1, 0]), scores)


def test_one_seed_has_no_spread() -> None:
    assert spread([0.5]) is None
    assert spread([0.5, 0.7]) == pytest.approx(0.1 * 2**0.5)
