from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tasks.evaluation.intervals import difference_interval, exact_p_value, rate_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_rate_over_single_rollouts_has_wilsons_interval(successes, n, low, high):
    estimate = rate_interval([1.0] * successes + [0.0] * (n - successes), rollouts=1)
    assert estimate.value == pytest.approx(successes / n)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_rollouts_that_all_agree_count_as_one():
    rates = [1.0] * 6 + [0.0] * 14
    many, single = rate_interval(rates, rollouts=8), rate_interval(rates, rollouts=1)
    assert many.high - many.low == pytest.approx(single.high - single.low, rel=0.02)
    assert rate_interval([1.0] * 20, rollouts=8) == rate_interval([1.0] * 20, rollouts=1)


def test_rollouts_that_do_not_depend_on_the_problem_count_each():
    rates = [0.5, 0.5, 0.25, 0.75] * 50
    many, single = rate_interval(rates, rollouts=4), rate_interval([0.0, 1.0] * 400, rollouts=1)
    assert (many.low, many.high) == (pytest.approx(single.low), pytest.approx(single.high))


def test_a_difference_over_single_rollouts_has_bonett_and_prices_interval():
    # Fagerland, Lydersen and Laake 2014, table I: 21 pairs, 7 changed one way and 1 the other.
    estimate = difference_interval([-1] * 7 + [1] + [0] * 13, rollouts=1)
    assert estimate.value == pytest.approx(-6 / 21)
    assert (estimate.low, estimate.high) == (pytest.approx(-0.508, abs=5e-4), pytest.approx(-0.013, abs=5e-4))


def test_where_nothing_changed_the_interval_has_a_width_that_shrinks_with_n():
    few, many = difference_interval([0.0] * 10, 1), difference_interval([0.0] * 1000, 1)
    assert few.low == -few.high == pytest.approx(-1.96 * 2**0.5 / 12, abs=1e-3)
    assert 0 < many.high < few.high / 50


def test_intervals_stay_within_what_is_possible_and_around_their_value():
    for n, value in product([1, 2, 5], [-1.0, 0.0, 1.0]):
        difference = difference_interval([value] * n, rollouts=2)
        assert -1 <= difference.low <= difference.value <= difference.high <= 1
        rate = rate_interval([abs(value)] * n, rollouts=2)
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


@pytest.mark.parametrize("problems", [20, 200])
@pytest.mark.parametrize("rollouts", [1, 4])
@pytest.mark.parametrize("base", [0.1, 0.5])
def test_both_intervals_hold_the_truth_in_about_95_of_100_evaluations(problems, rollouts, base):
    """Problems differ in how hard they are (a beta distribution), and training lifts each by a tenth of the rest."""
    rng = np.random.default_rng(problems + rollouts)
    truth, lift, runs, hits, rate_hits = base, 0.1, 1500, 0, 0
    for _ in range(runs):
        skill = rng.beta(2 * base, 2 * (1 - base), problems)
        before = rng.binomial(rollouts, skill) / rollouts
        after = rng.binomial(rollouts, skill + lift * (1 - skill)) / rollouts
        difference, rate = difference_interval(after - before, rollouts), rate_interval(before, rollouts)
        hits += difference.low <= lift * (1 - truth) <= difference.high
        rate_hits += rate.low <= truth <= rate.high
    assert 0.93 <= hits / runs <= 0.995
    assert 0.93 <= rate_hits / runs <= 0.995


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(1, 7, 0.0703125), (9, 1, 0.021484375), (5, 5, 1.0), (0, 0, 1.0), (6, 0, 0.03125), (0, 5, 0.0625)],
)
def test_with_single_rollouts_the_exact_test_is_mcnemars(better, worse, p):
    assert exact_p_value([1] * better + [-1] * worse + [0] * 10) == pytest.approx(p, rel=1e-12)


def test_with_more_rollouts_the_exact_test_counts_all_sign_patterns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        differences = rng.integers(-4, 5, 9).tolist()
        sums = [
            abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=9)
        ]
        expected = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
        assert exact_p_value(differences) == pytest.approx(expected)


def test_where_training_does_nothing_the_exact_test_rarely_says_otherwise():
    rng = np.random.default_rng(1)
    skill = rng.beta(1, 1, (1000, 60))
    wins = rng.binomial(4, skill) - rng.binomial(4, skill)
    alarms = sum(exact_p_value(row.tolist()) < 0.05 for row in wins)
    assert 20 <= alarms <= 65
