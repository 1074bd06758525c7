"""The statistics of a paired comparison: two 95 % intervals and an exact test, for problems with several rollouts.

Rollouts of one problem resemble each other, so the problem is what counts as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def rate_interval(problem_rates: Sequence[float], rollouts: float) -> Estimate:
    """The mean success rate over problems, with Wilson's interval at the effective sample size.

    With one rollout a problem this is Wilson's interval. With more, the number of episodes is divided by the design
    effect: the variance of the mean over problems, relative to that of as many independent episodes (Franco, Little,
    Louis and Slud 2019, "Comparative study of confidence intervals for proportions in complex sample surveys").
    A problem that always fails and one that always succeeds are added before that variance is estimated, which errs
    towards a wider interval at few problems and where all problems agree.

    Args:
        problem_rates: success rate of each problem, at least one.
        rollouts: mean number of episodes a problem.
    """
    padded = np.array([0.0, 1.0, *problem_rates])
    design_effect = float(padded.var()) * rollouts / (padded.mean() * (1 - padded.mean()))
    n, p = len(problem_rates), float(np.mean(problem_rates))
    size = n * rollouts / min(max(design_effect, 1.0), rollouts)
    centre = (p + Z95**2 / (2 * size)) / (1 + Z95**2 / size)
    half = Z95 / (1 + Z95**2 / size) * math.sqrt(p * (1 - p) / size + Z95**2 / (4 * size**2))
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))


def difference_interval(differences: Sequence[float], rollouts: float) -> Estimate:
    """The mean of the problems' differences (after - before), with an adjusted normal interval.

    Two pseudo-problems, one that got better and one that got worse by 1 / sqrt(rollouts), are added before the mean
    and the standard error are taken over problems. With one rollout a problem this is exactly the interval of Bonett
    and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", which Fagerland, Lydersen and Laake 2014 recommend: unlike the plain one it has a width where no problem
    changed, and covers at small n. With more rollouts the step is smaller, as a mean of several is less coarse;
    `tests/tasks/evaluation/test_intervals.py` measures the coverage.

    Args:
        differences: one number in [-1, 1] a problem, at least one.
        rollouts: mean number of pairs a problem.
    """
    step = 1 / math.sqrt(rollouts)
    padded = np.concatenate([np.asarray(differences, dtype=float), [step, -step]])
    centre, error = float(padded.mean()), float(padded.std()) / math.sqrt(len(padded))
    value = float(np.mean(differences))
    low, high = centre - Z95 * error, centre + Z95 * error
    return Estimate(value, max(-1.0, min(value, low)), min(1.0, max(value, high)))


def exact_p_value(differences: Sequence[int]) -> float:
    """Two-sided exact paired test that before and after are alike: how often random signs give as large a sum.

    Under that hypothesis, swapping a problem's before and after changes nothing, so each difference is as likely
    positive as negative. All sign patterns are counted, by convolution. With one rollout a problem this is McNemar's
    exact test (the binomial test over the problems that changed); with more it is Fisher's paired randomization test.

    Args:
        differences: successes after minus successes before, per problem.
    """
    sizes = [abs(d) for d in differences if d]
    total, observed = sum(sizes), abs(sum(differences))
    chances = np.zeros(2 * total + 1)  # (sums from -total to total)
    chances[total] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    sums = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[sums >= observed].sum()))
