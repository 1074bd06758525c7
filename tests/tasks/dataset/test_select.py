from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dataset.records import REASONS
from tasks.dataset.select import check_agent_ratios, for_policy, select_turns
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode, EpisodeError, Turn, of_policy

NONE_HELD_OUT: frozenset[str] = frozenset()


def keep(episodes, heldout=NONE_HELD_OUT, **options):
    return select_turns(episodes, CollectConfig(**options), frozenset(heldout))


def replies(selection):
    return [r.messages[-1]["content"] for r in selection.kept]


def reasons(selection):
    return [r.reason for r in selection.rejected]


def test_turns_of_an_agent_that_only_takes_part_are_not_trained_on(build):
    turns = [build.turn("writer"), build.turn("checker", trained=False)]
    selection = keep([build.episode(turns=turns)])
    assert [r.metadata.agent_name for r in selection.kept] == ["writer"]
    assert reasons(selection) == ["not_trained"]


def test_a_kept_turn_becomes_a_record_of_exactly_what_the_policy_saw_and_said(build):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    turn = build.turn("reasoner", 2, messages=asked, reply="2", reward=0.5)
    (record,) = keep([build.episode(7, turns=[turn], rollout_idx=3, difficulty=4)]).kept
    assert record.messages == [*asked, {"role": "assistant", "content": "2"}]
    assert record.metadata.model_dump() == {
        "agent_name": "reasoner",
        "policy_name": "shared_model",
        "reward": 0.5,
        "env_success": True,
        "env_name": "math_env",
        "env_idx": 7,
        "rollout_idx": 3,
        "turn_idx": 2,
        "problem_hash": "0000000000000007",
        "agent_success": True,
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "difficulty": 4,
    }


def test_what_the_journal_knows_beyond_the_turns_never_reaches_a_record(build):
    episode = build.episode(metadata={"answer": "SECRET"}, turns=[build.turn(prompt_ids=[1], reply_ids=[2])])
    assert "SECRET" not in keep([episode]).kept[0].model_dump_json()


def test_the_failed_tries_before_a_success_are_kept(build):
    turns = [build.turn(turn_idx=0, success=False), build.turn(turn_idx=1, success=True)]
    assert replies(keep([build.episode(turns=turns)])) == ["reply 0", "reply 1"]


def test_a_flag_that_stood_in_mid_episode_keeps_nothing_of_an_episode_that_fails(build):
    # The replaced system kept the tool's turn 1 here: the reasoner had passed in turn 0.
    turns = [
        build.turn("reasoner", 0, success=True),
        build.turn("tool", 1, success=False),
        build.turn("reasoner", 1, success=False),
    ]
    selection = keep([build.episode(success=False, turns=turns)])
    assert selection.kept == []
    assert reasons(selection) == ["episode_failed"] * 3


@pytest.mark.parametrize("episode_success", [True, False])
def test_agent_mode_goes_by_the_last_turn_of_each_agent_whatever_the_episode_came_to(build, episode_success):
    turns = [
        build.turn("coder", 0, success=False),
        build.turn("tester", 0, success=True),
        build.turn("tester", 1, success=False),
        build.turn("coder", 1, success=True),
    ]
    selection = keep([build.episode(success=episode_success, turns=turns)], collect_mode="agent")
    assert [(r.metadata.agent_name, r.metadata.turn_idx) for r in selection.kept] == [("coder", 0), ("coder", 1)]
    assert reasons(selection) == ["agent_failed", "agent_failed"]


def test_without_only_success_failures_are_kept_and_errors_are_not(build):
    episodes = [build.episode(0, success=False), build.episode(1), build.episode(2, error=build.error())]
    selection = keep(episodes, only_success=False)
    assert [r.metadata.env_success for r in selection.kept] == [False, True]
    assert reasons(selection) == ["episode_error"]


def test_an_errored_episode_is_not_a_failed_one(build):
    selection = keep([build.episode(success=False, error=build.error()), build.episode(1, success=False)])
    assert reasons(selection) == ["episode_error", "episode_failed"]
    assert (selection.funnel.finished, selection.funnel.errored, selection.funnel.succeeded) == (1, 1, 0)


def test_a_truncated_reply_is_kept_only_where_the_user_asks_for_it(build):
    episode = build.episode(turns=[build.turn(finish_reason="length")])
    assert reasons(keep([episode])) == ["truncated"]
    assert replies(keep([episode], keep_truncated=True)) == ["reply 0"]


def test_an_empty_reply_is_never_kept(build):
    episode = build.episode(turns=[build.turn(reply=" \n")])
    assert reasons(keep([episode], only_success=False)) == ["empty_reply"]


def test_a_problem_of_the_held_out_set_is_never_kept(build):
    selection = keep([build.episode(0), build.episode(1)], heldout={"0000000000000001"})
    assert [r.metadata.env_idx for r in selection.kept] == [0]
    assert reasons(selection) == ["held_out"]


def test_of_equal_turns_the_first_stays_in_whatever_order_the_episodes_finished(build):
    episodes = [build.episode(0, rollout_idx=r, turns=[build.turn()]) for r in (2, 0, 1)]
    selection = keep(episodes)
    assert [r.metadata.rollout_idx for r in selection.kept] == [0]
    assert reasons(selection) == ["duplicate"] * 2


def test_the_same_reply_to_another_prompt_is_no_duplicate(build):
    turns = [build.turn(turn_idx=i, reply="42") for i in range(2)]
    assert len(keep([build.episode(turns=turns)]).kept) == 2


def test_a_turn_that_was_rejected_does_not_make_its_equal_a_duplicate(build):
    episodes = [build.episode(i, success=bool(i), turns=[build.turn()]) for i in range(2)]
    selection = keep(episodes)
    assert [r.metadata.env_idx for r in selection.kept] == [1]
    assert reasons(selection) == ["episode_failed"]


def repair(build, *successes, **changes):
    """A solved episode of one agent, whose turns went like this."""
    turns = [build.turn(turn_idx=i, success=success) for i, success in enumerate(successes)]
    return build.episode(turns=turns, **changes)


@pytest.mark.parametrize("mode", ["env", "agent"])
@pytest.mark.parametrize(
    ("successes", "credit", "kept"),
    [
        ([False, True], "all", [0, 1]),
        ([False, True], "last", [1]),
        ([False, True, True], "last", [2]),
        ([False, True], "until_success", [0, 1]),
        ([True, True], "until_success", [0]),
        ([False, True, False, True], "until_success", [0, 1]),
    ],
)
def test_credit_says_which_turns_of_an_agent_that_was_kept_are_trained_on(build, mode, successes, credit, kept):
    selection = keep([repair(build, *successes)], collect_mode=mode, turns=credit)
    assert [r.metadata.turn_idx for r in selection.kept] == kept
    assert reasons(selection) == ["other_turn"] * (len(successes) - len(kept))


def test_an_agent_that_never_succeeded_in_a_solved_episode_keeps_all_until_success_and_one_as_last(build):
    turns = [build.turn("coder", 0), *(build.turn("tester", i, success=False) for i in range(2))]
    episode = build.episode(turns=turns)
    spoke = [(r.metadata.agent_name, r.metadata.turn_idx) for r in keep([episode], turns="until_success").kept]
    assert spoke == [("coder", 0), ("tester", 0), ("tester", 1)]
    spoke = [(r.metadata.agent_name, r.metadata.turn_idx) for r in keep([episode], turns="last").kept]
    assert spoke == [("coder", 0), ("tester", 1)]


def test_no_earlier_turn_stands_in_for_a_last_one_that_was_cut_off(build):
    turns = [build.turn(turn_idx=0), build.turn(turn_idx=1, finish_reason="length")]
    selection = keep([build.episode(turns=turns)], turns="last")
    assert reasons(selection) == ["other_turn", "truncated"]


def tries(build, *tokens, problem=0):
    """Episodes of one problem, whose replies differ and have these lengths."""
    return [
        build.episode(problem, rollout_idx=i, turns=[build.turn(reply=f"{problem} {i}", completion_tokens=n)])
        for i, n in enumerate(tokens)
    ]


def rollouts(selection):
    return [r.metadata.rollout_idx for r in selection.kept]


def test_at_most_so_many_episodes_of_a_problem_stay_the_shortest_ones_first(build):
    episodes = [*tries(build, 9, 3, 5, 3), *tries(build, 7, problem=1)]
    selection = keep(episodes, max_per_problem=2)
    assert [(r.metadata.env_idx, r.metadata.rollout_idx) for r in selection.kept] == [(0, 1), (0, 3), (1, 0)]
    assert reasons(selection) == ["over_quota"] * 2
    assert rollouts(keep(episodes[:4], max_per_problem=3)) == [1, 2, 3]
    assert rollouts(keep(episodes[:4], max_per_problem=2, prefer="first")) == [0, 1]


def test_which_episodes_a_draw_keeps_depends_on_the_seed_and_their_keys_alone(build):
    def drawn(seed, *problems):
        episodes = [e for p in problems for e in tries(build, *[5] * 12, problem=p)]
        selection = keep(episodes, max_per_problem=4, prefer="random", seed=seed)
        return [r.metadata.rollout_idx for r in selection.kept if r.metadata.env_idx == 1]

    assert drawn(0, 1) == drawn(0, 0, 1, 2)
    assert len({tuple(drawn(seed, 1)) for seed in range(5)}) > 1


def test_the_turns_of_an_episode_stay_or_go_together(build):
    def episode(i, tokens):
        turns = [build.turn(turn_idx=t, reply=f"{i} {t}", completion_tokens=n) for t, n in enumerate(tokens)]
        return build.episode(rollout_idx=i, turns=turns)

    selection = keep([episode(0, [1, 9]), episode(1, [4, 4])], max_per_problem=1)
    assert [(r.metadata.rollout_idx, r.metadata.turn_idx) for r in selection.kept] == [(1, 0), (1, 1)]
    # Only what would be trained on is counted.
    assert rollouts(keep([episode(0, [1, 9]), episode(1, [9, 4])], max_per_problem=1, turns="last")) == [1]


def test_an_episode_that_only_repeats_what_is_kept_takes_no_place(build):
    def episode(i, reply, tokens):
        return build.episode(rollout_idx=i, turns=[build.turn(reply=reply, completion_tokens=tokens)])

    selection = keep([episode(0, "a", 1), episode(1, "a", 2), episode(2, "b", 3)], max_per_problem=2)
    assert replies(selection) == ["a", "b"]
    assert reasons(selection) == ["duplicate"]


def test_an_episode_without_a_place_makes_no_duplicate_of_what_a_kept_one_says(build):
    told = build.turn(turn_idx=0, reply="same", completion_tokens=1)
    turns = [
        [told, build.turn(turn_idx=1, reply=reply, completion_tokens=n)] for reply, n in [("long", 9), ("brief", 2)]
    ]
    selection = keep([build.episode(rollout_idx=i, turns=t) for i, t in enumerate(turns)], max_per_problem=1)
    assert replies(selection) == ["same", "brief"]
    assert reasons(selection) == ["duplicate", "over_quota"]


def test_a_failed_episode_takes_no_place_and_ratios_come_after_places(build):
    episodes = duo(build, 4)
    failed = build.episode(0, rollout_idx=1, success=False, turns=[build.turn(completion_tokens=1)])
    selection = keep([*episodes, failed], max_per_problem=1, agent_ratios={"a": 0.5, "b": 0.25})
    assert selection.funnel.kept_by_agent == {"a": 4, "b": 2}
    assert sorted(reasons(selection)) == ["agent_ratio"] * 2 + ["episode_failed"]


def duo(build, count):
    return [
        build.episode(i, turns=[build.turn(a, 0, messages=[{"role": "user", "content": f"{a} {i}"}]) for a in "ab"])
        for i in range(count)
    ]


def test_agent_ratios_drop_the_surplus_and_no_more(build):
    selection = keep(duo(build, 70), agent_ratios={"a": 0.7})
    assert selection.funnel.kept_by_agent == {"a": 70, "b": 30}
    assert reasons(selection) == ["agent_ratio"] * 40


def test_which_surplus_goes_depends_on_the_seed_alone(build):
    def kept(seed, episodes):
        selection = keep(episodes, agent_ratios={"a": 0.7, "b": 0.3}, seed=seed)
        return [r.metadata.env_idx for r in selection.kept if r.metadata.agent_name == "b"]

    episodes = duo(build, 70)
    assert kept(1, episodes) == kept(1, episodes[::-1])
    assert kept(1, episodes) != kept(2, episodes)
    assert kept(1, episodes) != list(range(30))


def test_an_agent_without_a_kept_turn_does_not_empty_the_dataset(build):
    turns = [build.turn("a"), build.turn("b", success=False)]
    selection = keep([build.episode(turns=turns)], collect_mode="agent", agent_ratios={"a": 0.5, "b": 0.5})
    assert selection.funnel.kept_by_agent == {"a": 1}


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"coder": 0.5}, "no agent 'coder' plays here; wanted a, b"),
        ({"a": 0.8, "b": 0.4}, "together at most 1"),
        ({"a": -0.1}, "shares from 0 to 1"),
    ],
)
def test_ratios_that_cannot_be_met_are_refused(ratios, message):
    with pytest.raises(ValueError, match=message):
        check_agent_ratios(ratios, ["a", "b"])


@pytest.mark.parametrize(
    ("ratios", "kept", "of_c"),
    [
        ({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 20, "b": 10}, 20),
        ({"a": 0.4}, {"a": 20, "b": 15}, 20),  # b and c have 0.3 each
        ({"c": 0.5}, {"a": 20, "b": 20}, 20),
        ({"a": 0.5, "b": 0.0}, {"a": 20}, 20),
        ({"a": 0.7, "b": 0.3}, {"a": 20, "b": 8}, 0),
    ],
)
def test_the_ratios_of_a_policy_are_those_of_its_own_agents_among_themselves(build, ratios, kept, of_c):
    def told(agent, i):
        policy = "two" if agent == "c" else "one"
        return build.turn(agent, policy_name=policy, messages=[{"role": "user", "content": f"{agent} {i}"}])

    episodes = [build.episode(i, turns=[told(agent, i) for agent in "abc"]) for i in range(20)]
    config = CollectConfig(agent_ratios=ratios)
    for policy, wanted in (("one", kept), ("two", {"c": of_c} if of_c else {})):
        played = [of_policy(episode, policy) for episode in episodes]
        selection = select_turns(played, for_policy(config, played, "abc"), NONE_HELD_OUT)
        assert selection.funnel.kept_by_agent == wanted


def test_where_one_policy_plays_all_the_ratios_are_as_they_were(build):
    episodes = duo(build, 70)
    config = CollectConfig(agent_ratios={"a": 0.7})
    of_one = select_turns(episodes, for_policy(config, episodes, "ab"), NONE_HELD_OUT)
    assert of_one == select_turns(episodes, config, NONE_HELD_OUT)


def test_an_episode_that_stands_there_twice_is_refused(build):
    with pytest.raises(ValueError, match="episode 0 of problem 0000000000000004 stands there 2 times"):
        keep([build.episode(3), build.episode(4), build.episode(4)])


@st.composite
def journals(draw):
    """Random journals, poor in distinct texts so that every reason comes up."""
    keys = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), unique=True, max_size=12))
    episodes = []
    for env_idx, rollout_idx in keys:
        turns = [
            Turn(
                agent_name=agent,
                policy_name="shared_model",
                turn_idx=turn_idx,
                messages=[{"role": "user", "content": draw(st.sampled_from("pq"))}],
                reply=draw(st.sampled_from(["", "x", "y", "z"])),
                finish_reason=draw(st.sampled_from(["stop", "length"])),
                reward=0.0,
                success=draw(st.booleans()),
                prompt_tokens=1,
                completion_tokens=draw(st.integers(1, 3)),
            )
            for agent in "ab"
            for turn_idx in range(draw(st.integers(0, 2)))
        ]
        error = EpisodeError(kind="KeyError", message="", traceback="")
        episodes.append(
            Episode(
                problem_hash=f"{env_idx:016x}",
                rollout_idx=rollout_idx,
                env_idx=env_idx,
                env_name="math_env",
                difficulty=0,
                success=draw(st.booleans()),
                turns=turns,
                error=error if draw(st.integers(0, 4)) == 0 else None,
                duration_s=0.0,
            )
        )
    return episodes


configs = st.builds(
    CollectConfig,
    only_success=st.booleans(),
    collect_mode=st.sampled_from(["env", "agent"]),
    turns=st.sampled_from(["all", "last", "until_success"]),
    max_per_problem=st.sampled_from([None, 1, 2]),
    prefer=st.sampled_from(["shortest", "first", "random"]),
    keep_truncated=st.booleans(),
    seed=st.integers(0, 3),
)


@settings(max_examples=150, deadline=None)
@given(journals(), configs, st.sets(st.integers(0, 5)), st.randoms(use_true_random=False), st.booleans())
def test_the_funnel_adds_up_and_nothing_disappears(episodes, config, heldout, rng: random.Random, with_ratios):
    agents = {t.agent_name for e in episodes for t in e.turns}
    if with_ratios and agents:
        config = config.model_copy(update={"agent_ratios": {min(agents): 0.3}})
    hashes = frozenset(f"{i:016x}" for i in heldout)
    selection = select_turns(episodes, config, hashes)
    funnel = selection.funnel
    played = {(e.problem_hash, e.rollout_idx, t.agent_name, t.turn_idx) for e in episodes for t in e.turns}
    told = [
        (r.metadata.problem_hash, r.metadata.rollout_idx, r.metadata.agent_name, r.metadata.turn_idx)
        for r in [*selection.kept, *selection.rejected]
    ]
    assert len(told) == len(played) and set(told) == played
    assert funnel.turns == funnel.kept + sum(funnel.rejected.values()) == len(played)
    assert funnel.kept == len(selection.kept) == sum(funnel.kept_by_agent.values())
    assert funnel.finished + funnel.errored == len(episodes)
    assert set(funnel.rejected) <= set(REASONS)
    assert len({r.content for r in selection.kept}) == len(selection.kept)
    if config.max_per_problem and not config.agent_ratios:
        told_of = {(r.metadata.problem_hash, r.metadata.rollout_idx) for r in selection.kept}
        assert all(n <= config.max_per_problem for n in Counter(problem for problem, _ in told_of).values())
        contents = {r.content for r in selection.kept}
        assert all(r.content in contents for r in selection.rejected if r.reason == "duplicate")
        of_problems = {(r.metadata.problem_hash, r.content) for r in selection.kept}
        surplus = [r for r in selection.rejected if r.reason == "over_quota"]
        assert all((r.metadata.problem_hash, r.content) not in of_problems for r in surplus)

    shuffled = list(episodes)
    rng.shuffle(shuffled)
    assert select_turns(shuffled, config, hashes) == selection
