from __future__ import annotations

import json
from itertools import combinations, product

import pytest

from envs.base import Problem
from tasks.dataset.select import select_turns
from tasks.dataset.stats import compute_stats, pass_at_k, pass_at_k_table, write_stats
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import EpisodeKey, of_policy
from tasks.rollout.plan import due_slots


def stats_of(episodes, requested=None, **options):
    funnel = select_turns(episodes, CollectConfig(**options), frozenset()).funnel
    return compute_stats(episodes, funnel, len(episodes) if requested is None else requested)


def test_episodes_add_up_to_what_was_requested(build):
    episodes = [
        *(build.episode(i, success=i < 3) for i in range(5)),
        *(build.episode(5 + i, error=build.error(kind)) for i, kind in enumerate(["KeyError", "OSError", "KeyError"])),
    ]
    counts = stats_of(episodes, requested=10)["episodes"]
    assert counts == {
        "requested": 10,
        "finished": 5,
        "errored": 3,
        "errors": {"KeyError": 2, "OSError": 1},
        "missing": 2,
        "succeeded": 3,
        "success_rate": 0.6,
    }
    assert counts["requested"] == counts["finished"] + counts["errored"] + counts["missing"]


def test_rows_are_counted_by_agent_and_by_reason(build):
    turns = [build.turn("coder"), build.turn("tester"), build.turn("tester", 1, finish_reason="length")]
    stats = stats_of([build.episode(0, turns=turns), build.episode(1, success=False)])
    assert stats["rows"] == {
        "turns": 4,
        "kept": 2,
        "kept_by_agent": {"coder": 1, "tester": 1},
        "rejected": {"episode_failed": 1, "truncated": 1},
    }
    assert stats["finish_reasons"] == {"stop": 3, "length": 1}


def test_episodes_are_counted_by_how_well_their_code_was_isolated(build):
    tiers = ["A", "unsafe", "A"]
    episodes = [build.episode(i, metadata={"sandbox_tier": tier}) for i, tier in enumerate(tiers)]
    assert stats_of(episodes)["sandbox_tiers"] == {"A": 2, "unsafe": 1}


def test_lengths_are_told_per_env_and_agent(build):
    def play(i, tokens):
        told = [{"role": "user", "content": str(i)}]
        return build.episode(i, turns=[build.turn("coder", messages=told, completion_tokens=tokens, reward=i / 4)])

    env = stats_of([play(i, tokens) for i, tokens in enumerate([1, 2, 3, 4, 100])])["by_env"]["math_env"]
    coder = env["agents"]["coder"]
    assert coder["completion_tokens"] == {"mean": 22.0, "p50": 3.0, "p90": pytest.approx(61.6), "max": 100.0}
    assert coder["prompt_tokens"] == {"mean": 10.0, "p50": 10.0, "p90": 10.0, "max": 10.0}
    assert coder["reward"]["mean"] == 0.5
    assert coder["turns"] == coder["turns_succeeded"] == 5
    assert env["turns"]["max"] == 1.0


def test_success_is_told_by_difficulty(build):
    episodes = [build.episode(i, success=i % 3 == 0, difficulty=i % 2 * 2) for i in range(6)]
    assert stats_of(episodes)["by_difficulty"] == {
        "unknown": {"episodes": 3, "succeeded": 1, "success_rate": pytest.approx(1 / 3)},
        "2": {"episodes": 3, "succeeded": 1, "success_rate": pytest.approx(1 / 3)},
    }


def test_an_errored_episode_is_in_no_rate_and_no_length(build):
    wild = build.turn(reward=99.0)
    stats = stats_of([build.episode(0), build.episode(1, success=False, turns=[wild], error=build.error())])
    assert stats["by_env"]["math_env"]["success_rate"] == 1.0
    assert stats["by_env"]["math_env"]["agents"]["solver"]["reward"]["max"] == 1.0
    assert stats["pass_at_k"] == {"1": {"pass_rate": 1.0, "problems": 1}}


def test_pass_at_k_is_the_share_of_all_samples_of_k_that_hold_a_success():
    for n in range(1, 9):
        for c in range(n + 1):
            tries = [1] * c + [0] * (n - c)
            for k in range(1, n + 1):
                samples = list(combinations(tries, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, samples)) / len(samples))


def test_pass_at_k_doubles_up_to_the_most_tries_and_uses_problems_tried_often_enough():
    table = pass_at_k_table([(4, 2), (5, 0), (1, 1)])
    assert list(table) == ["1", "2", "4"]
    assert table["1"] == {"pass_rate": pytest.approx((0.5 + 0 + 1) / 3), "problems": 3}
    assert table["2"] == {"pass_rate": pytest.approx((5 / 6 + 0) / 2), "problems": 2}
    assert table["4"] == {"pass_rate": pytest.approx(0.5), "problems": 2}


@pytest.mark.parametrize("chance", [0.25, 0.5])
def test_stopping_at_enough_successes_does_not_make_pass_at_k_look_better(build, chance):
    """Over all ways in which three tries can go, the mean of the estimate is what it estimates."""
    problem = Problem(statement="once")
    told = {"1": 0.0, "2": 0.0}
    naive = 0.0
    for went in product([True, False], repeat=3):
        outcomes: dict[EpisodeKey, bool | None] = {}
        while owed := [s.key for s in due_slots([problem], 3, 3, 2, outcomes) if s.key not in outcomes]:
            outcomes |= {key: went[key.rollout_idx] for key in owed}
        episodes = [build.episode(success=bool(s), rollout_idx=key.rollout_idx) for key, s in outcomes.items()]
        weight = chance ** sum(went) * (1 - chance) ** (3 - sum(went))
        funnel = select_turns(episodes, CollectConfig(), frozenset()).funnel
        table = compute_stats(episodes, funnel, len(episodes), enough_successes=2)["pass_at_k"]
        told = {k: told[k] + weight * table[k]["pass_rate"] for k in told}
        naive += weight * sum(map(bool, outcomes.values())) / len(outcomes)
    assert told == {"1": pytest.approx(chance), "2": pytest.approx(1 - (1 - chance) ** 2)}
    assert naive > chance + 0.01


def test_tries_beyond_the_planned_ones_count_as_played_but_not_for_pass_at_k(build):
    episodes = [build.episode(success=i == 2, rollout_idx=i) for i in range(4)]
    funnel = select_turns(episodes, CollectConfig(), frozenset()).funnel
    stats = compute_stats(episodes, funnel, 4, enough_successes=2)
    assert stats["pass_at_k"] == {"1": {"pass_rate": 0.0, "problems": 1}, "2": {"pass_rate": 0.0, "problems": 1}}
    assert (stats["episodes"]["success_rate"], stats["problems"]) == (0.25, 1)


def test_what_is_counted_about_the_turns_of_one_policy_agrees(build):
    turns = [
        build.turn("coder", policy_name="one"),
        build.turn("tester", policy_name="two", finish_reason="length"),
        build.turn("tester", 1, policy_name="two"),
    ]
    episodes = [build.episode(turns=turns)]
    funnel = select_turns([of_policy(e, "two") for e in episodes], CollectConfig(), frozenset()).funnel
    stats = compute_stats(episodes, funnel, 1, policy="two")
    assert stats["rows"]["turns"] == sum(stats["finish_reasons"].values()) == 2
    assert list(stats["by_env"]["math_env"]["agents"]) == ["tester"]
    assert stats["by_env"]["math_env"]["turns"]["max"] == 2.0
    assert stats["episodes"]["succeeded"] == 1


def test_episodes_of_another_request_are_refused(build):
    with pytest.raises(ValueError, match="found 2 episodes; wanted at most the 1"):
        stats_of([build.episode(0), build.episode(1)], requested=1)


def test_a_collection_in_which_nothing_finished_has_stats_that_json_can_hold(build, tmp_path):
    for episodes in ([], [build.episode(turns=[], error=build.error())]):
        stats = stats_of(episodes, requested=3)
        assert stats["episodes"]["success_rate"] is None
        write_stats(tmp_path / "stats.json", stats)
        assert json.loads((tmp_path / "stats.json").read_text()) == stats


def test_stats_are_written_as_they_are_or_not_at_all(build, tmp_path):
    stats = stats_of([build.episode(i, success=i < 2, difficulty=i) for i in range(4)])
    write_stats(tmp_path / "stats.json", stats)
    assert json.loads((tmp_path / "stats.json").read_text()) == stats
    with pytest.raises(ValueError, match="JSON"):
        write_stats(tmp_path / "other.json", {"rate": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["stats.json"]
