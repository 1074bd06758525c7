from __future__ import annotations

from collections import Counter

import pytest

from tasks.dataset.checks import NothingToTrainOnError
from tasks.dataset.relabel import check_control_can_be_made, control_records
from tasks.rollout.config import CollectConfig


def control(episodes, which="failures", most=1000, **options):
    return control_records(episodes, which, CollectConfig(**options), frozenset(), most)


def rows(records):
    return sorted((r.metadata.env_idx, r.metadata.agent_name, r.metadata.turn_idx) for r in records)


def pair(build, env_idx, coder, tester):
    """An episode of two agents with turns that went like this; solved if both ended well."""
    turns = [
        build.turn(agent, i, success, messages=[{"role": "user", "content": f"{env_idx} {agent} {i}"}])
        for agent, successes in (("coder", coder), ("tester", tester))
        for i, success in enumerate(successes)
    ]
    return build.episode(env_idx, success=coder[-1] and tester[-1], turns=turns)


@pytest.fixture
def pairs(build):
    return [
        pair(build, 0, [False, True], [True]),
        pair(build, 1, [False, False], [True]),
        pair(build, 2, [True, False], [False]),
        pair(build, 3, [True], [False, False]),
    ]


def test_failures_are_all_turns_of_episodes_that_failed(pairs):
    wanted = [
        *((1, "coder", 0), (1, "coder", 1), (1, "tester", 0)),
        *((2, "coder", 0), (2, "coder", 1), (2, "tester", 0)),
        *((3, "coder", 0), (3, "tester", 0), (3, "tester", 1)),
    ]
    assert rows(control(pairs)) == wanted
    assert rows(control(pairs, turns="last")) == [
        *((1, "coder", 1), (1, "tester", 0), (2, "coder", 1), (2, "tester", 0), (3, "coder", 0), (3, "tester", 1))
    ]


def test_an_agent_that_was_right_in_an_episode_that_failed_is_no_failure_of_its_own(pairs):
    failures = control(pairs, collect_mode="agent")
    assert rows(failures) == [
        *((1, "coder", 0), (1, "coder", 1), (2, "coder", 0), (2, "coder", 1)),
        *((2, "tester", 0), (3, "tester", 0), (3, "tester", 1)),
    ]
    assert {r.metadata.agent_success for r in failures} == {False}


@pytest.mark.parametrize("mode", ["env", "agent"])
def test_shuffled_verdicts_keep_as_many_as_the_real_ones_and_say_the_truth(build, mode):
    episodes = [pair(build, i, [i % 4 == 0], [i % 2 == 0]) for i in range(40)]
    records = control(episodes, "shuffled verdicts", collect_mode=mode)
    kept = Counter(r.metadata.agent_name for r in records)
    assert kept == ({"coder": 10, "tester": 10} if mode == "env" else {"coder": 10, "tester": 20})
    for record in records:
        told = record.metadata
        truth = told.env_idx % (4 if told.agent_name == "coder" else 2) == 0
        assert (told.env_success, told.agent_success) == (told.env_idx % 4 == 0, truth)
        assert told.control == "shuffled verdicts"
    assert {r.metadata.agent_success for r in records} == {True, False}


def test_there_are_at_most_as_many_rows_as_asked_for(pairs):
    assert len(control(pairs, most=4)) == 4
    assert len(control(pairs, most=100)) == 9


def test_an_errored_episode_is_no_failure(build):
    with pytest.raises(NothingToTrainOnError, match="play more episodes that fail"):
        control([build.episode(0), build.episode(1, success=False, error=build.error())])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only_success": False}, "collect.only_success: found false; a control needs it"),
        ({"turns": "until_success"}, "collect.turns: found until_success; a control needs all or last"),
    ],
)
def test_a_config_that_allows_no_control_is_refused_in_one_line(pairs, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_control_can_be_made(CollectConfig(**options))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=message):
        control(pairs, **options)
