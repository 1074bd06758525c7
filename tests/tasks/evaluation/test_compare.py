from __future__ import annotations

import pytest

from tasks.evaluation.compare import compare


def test_a_comparison_worked_by_hand(play):
    # 10 problems: 2 solved both times, 5 only after, 1 only before, 2 never.
    comparison = compare(play([[1]] * 2 + [[0]] * 5 + [[1]] + [[0]] * 2), play([[1]] * 7 + [[0]] * 3))
    overall = comparison.overall
    assert (overall.problems, overall.pairs) == (10, 10)
    assert (overall.before.value, overall.after.value, overall.difference.value) == (0.3, 0.7, pytest.approx(0.4))
    # Bonett and Price: (5 + 1) / 12 better, (1 + 1) / 12 worse; 4 / 12 +- 1.96 sqrt((8 / 12 - 1 / 9) / 12).
    assert overall.difference.low == pytest.approx(0.3333 - 1.96 * 0.21517, abs=1e-3)
    assert overall.difference.high == pytest.approx(0.3333 + 1.96 * 0.21517, abs=1e-3)
    assert comparison.p_value == pytest.approx(2 * (1 + 6) / 64)
    assert comparison.verdict == "no significant difference"
    assert [c.env_idx for c in comparison.better] == [2, 3, 4, 5, 6]
    assert [(c.problem_hash, c.before, c.after) for c in comparison.worse] == [("0000000000000007", 1.0, 0.0)]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0, 1, "improved"), (1, 0, "got worse"), (1, 1, "no significant difference"), (0, 0, "no significant difference")],
)
def test_the_verdict_says_what_happened(play, before, after, verdict):
    assert compare(play([[before]] * 12), play([[after]] * 12)).verdict == verdict


def test_an_interval_that_excludes_0_is_not_enough_where_the_exact_test_doubts(play):
    comparison = compare(play([[0]] * 10), play([[1]] * 5 + [[0]] * 5))
    assert comparison.overall.difference.low > 0
    assert comparison.p_value == pytest.approx(2 / 32)
    assert comparison.verdict == "no significant difference"


def test_pairs_are_matched_by_key_not_by_position(play):
    before, after = play([[1, 0], [0, 0]]), play([[1, 0], [0, 0]])
    comparison = compare(before, after[::-1])
    assert comparison.better == comparison.worse == []


def test_each_problem_counts_the_same_and_is_what_varies(play):
    # Eight rollouts that all agree tell no more about how problems differ than one does.
    single = compare(play([[0]] * 10 + [[1]] * 10), play([[0]] * 5 + [[1]] * 15)).overall.difference
    many = compare(play([[0] * 8] * 10 + [[1] * 8] * 10), play([[0] * 8] * 5 + [[1] * 8] * 15)).overall.difference
    assert many.value == single.value == 0.25
    width = many.high - many.low
    assert width > 0.7 * (single.high - single.low)
    assert width > 2 * (single.high - single.low) / 8**0.5


def test_an_errored_episode_takes_its_pair_out_and_is_never_a_failure(play):
    before, after = play([[1, None], [1, 1], [None, 0]]), play([[1, 1], [1, None], [None, 1]])
    comparison = compare(before, after)
    assert (comparison.errored_before, comparison.errored_after, comparison.excluded) == (2, 2, 3)
    assert comparison.overall.pairs == 3
    assert comparison.worse == []
    assert [(c.env_idx, c.before, c.after, c.pairs) for c in comparison.better] == [(2, 0.0, 1.0, 1)]


def test_the_largest_changes_come_first(play):
    comparison = compare(play([[0, 0], [1, 1], [1, 1], [0, 0]]), play([[0, 1], [1, 0], [0, 0], [1, 1]]))
    assert [(c.env_idx, c.after) for c in comparison.better] == [(3, 1.0), (0, 0.5)]
    assert [(c.env_idx, c.after) for c in comparison.worse] == [(2, 0.0), (1, 0.5)]


def test_difficulties_are_compared_each_by_itself(play):
    effects = compare(
        play([[1], [0], [0]], difficulty=lambda i: min(i, 1) * 3),
        play([[1], [1], [0]], difficulty=lambda i: min(i, 1) * 3),
    ).by_difficulty
    assert {d: (e.problems, e.before.value, e.after.value) for d, e in effects.items()} == {
        0: (1, 1.0, 1.0),
        3: (2, 0.0, 0.5),
    }


def test_agents_are_compared_by_their_last_turns_where_both_sides_have_one(play):
    before = play([[0]] * 4, agents={"coder": [True, False], "tester": [True]})
    after = play([[0]] * 4, agents={"coder": [False, True], "judge": [True]})
    effects = compare(before, after).by_agent
    assert list(effects) == ["coder"]
    assert (effects["coder"].before.value, effects["coder"].after.value) == (0.0, 1.0)


def test_episodes_without_a_partner_are_refused(play):
    with pytest.raises(ValueError, match=r"1 stand only before and 2 only after, e\.g\. rollout 1 of problem 0{16}"):
        compare(play([[1, 1], [1]]), play([[1], [1, 0], [1]]))


def test_an_episode_that_stands_there_twice_is_refused(play):
    episodes = play([[1]])
    with pytest.raises(ValueError, match="stands there 2 times"):
        compare(episodes, episodes * 2)


@pytest.mark.parametrize("outcomes", [[], [[None], [None]]])
def test_where_no_pair_is_left_there_is_nothing_to_compare(play, outcomes):
    with pytest.raises(ValueError, match=r"nothing to compare: of [02] pairs"):
        compare(play(outcomes), play([[1]] * len(outcomes)))
