"""Plans that stop trying a problem once it is solved often enough, and spend what that saves."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import EpisodeKey
from tasks.rollout.plan import Slot, due_slots, make_plan
from tests.tasks.rollout.adding_game import Sum, add_problems

Outcomes = dict[EpisodeKey, bool | None]
PROBLEMS = add_problems(60)


def number(*name: object) -> float:
    """A fixed number from 0 to 1."""
    return int(hashlib.sha256(repr(name).encode()).hexdigest()[:8], 16) / 2**32


def goes(world: int, key: EpisodeKey) -> bool | None:
    """How an episode ends: problems are of any difficulty, some impossible, and one episode in 20 errs."""
    if number("errs", world, key) < 0.05:
        return None
    return number("episode", world, key) < max(0.0, 1.3 * number("problem", world, key.problem_hash) - 0.2)


class Plan:
    """What a test says about a plan, to be played in one go or with interruptions."""

    def __init__(self, world: int, num_problems: int, num_episodes: int, rollouts: int, enough: int | None) -> None:
        self.world = world
        self.problems = PROBLEMS[:num_problems]
        self.args = (num_episodes, rollouts, enough)

    def due(self, outcomes: Mapping[EpisodeKey, bool | None]) -> list[Slot]:
        return due_slots(self.problems, *self.args, outcomes)

    def play(self, outcomes: Outcomes | None = None, rng: random.Random | None = None) -> tuple[list[Slot], Outcomes]:
        """What was due in the end, and how it went. With `rng`, some of what is due at a time, in any order."""
        outcomes = {} if outcomes is None else dict(outcomes)
        before: set[EpisodeKey] = set()
        while True:
            due = self.due(outcomes)
            assert before <= {slot.key for slot in due}, "what was due is not due any more"
            before = {slot.key for slot in due}
            owed = [slot.key for slot in due if slot.key not in outcomes]
            if not owed:
                return due, outcomes
            if rng is not None:
                owed = rng.sample(owed, rng.randint(1, len(owed)))
            outcomes |= {key: goes(self.world, key) for key in owed}


def counts(due: list[Slot]) -> Counter[int]:
    return Counter(slot.env_idx for slot in due)


def successes(due: list[Slot], outcomes: Outcomes) -> Counter[int]:
    return Counter(slot.env_idx for slot in due if outcomes[slot.key])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rollouts = draw(st.integers(1, 6))
    enough = draw(st.integers(1, rollouts))
    return Plan(draw(st.integers(0, 10**6)), draw(st.integers(1, 60)), draw(st.integers(1, 150)), rollouts, enough)


@settings(max_examples=60, deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_the_same_episodes_are_due_in_the_end_whatever_was_interrupted_when(plan: Plan, rng: random.Random) -> None:
    due, _ = plan.play()
    assert plan.play(rng=rng)[0] == due
    other_runs = {
        EpisodeKey(p.hash, i): goes(plan.world, EpisodeKey(p.hash, i)) for p in plan.problems for i in range(9)
    }
    assert plan.play({key: other_runs[key] for key in rng.sample(sorted(other_runs), 5)}, rng)[0] == due
    assert plan.play(other_runs)[0] == due


@settings(max_examples=150, deadline=None)
@given(plans())
def test_the_budget_is_kept_and_spent_on_problems_that_are_hard_but_can_be_solved(plan: Plan) -> None:
    due, outcomes = plan.play()
    num_episodes, rollouts, enough = plan.args
    assert enough is not None
    tries, solved = counts(due), successes(due, outcomes)
    plain = counts(make_plan(plan.problems, num_episodes, rollouts))
    assert len(due) <= num_episodes
    assert [(s.env_idx, s.rollout_idx) for s in due] == [(p, i) for p in sorted(tries) for i in range(tries[p])]
    for problem, count in tries.items():
        assert solved[problem] <= enough
        if solved[problem] == enough:
            assert outcomes[EpisodeKey(plan.problems[problem].hash, count - 1)] or count <= enough, "tried on in vain"
        if problem in plain and count > plain[problem]:
            planned = [outcomes[EpisodeKey(plan.problems[problem].hash, i)] for i in range(plain[problem])]
            assert 0 < sum(map(bool, planned)) < enough <= plain[problem]
            assert count <= plain[problem] + rollouts
    if len(due) < num_episodes:
        assert len(tries) == len(plan.problems)
        for problem, count in tries.items():
            given_up = not solved[problem] or count >= 2 * rollouts or plain[problem] < enough
            assert solved[problem] == enough or given_up


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 5))
def test_where_all_rollouts_must_succeed_or_none_is_named_the_plan_is_the_plain_one(
    world: int, num_episodes: int, rollouts: int
) -> None:
    plain = make_plan(PROBLEMS, num_episodes, rollouts)
    assert Plan(world, 60, num_episodes, rollouts, rollouts).play()[0] == plain
    assert Plan(world, 60, num_episodes, rollouts, None).play()[0] == plain


def follow(num_problems: int, num_episodes: int, rollouts: int, enough: int, *went: str) -> dict[int, int]:
    """Tries at each problem in the end. `went`: for each problem, how its rollouts go; 1 is a success, all else not."""
    problems = add_problems(num_problems)
    outcomes: Outcomes = {}
    while True:
        due = due_slots(problems, num_episodes, rollouts, enough, outcomes)
        owed = [slot for slot in due if slot.key not in outcomes]
        if not owed:
            return dict(counts(due))
        for slot in owed:
            told = went[slot.env_idx] if slot.env_idx < len(went) else ""
            outcomes[slot.key] = told[slot.rollout_idx : slot.rollout_idx + 1] == "1"


def test_what_an_easy_problem_saves_goes_to_the_hard_one_and_not_to_the_impossible_one() -> None:
    assert follow(9, 12, 4, 2, "11", "", "00010000") == {0: 2, 1: 4, 2: 6}


def test_a_hard_problem_is_tried_no_more_once_it_is_solved_often_enough() -> None:
    assert follow(9, 12, 4, 2, "11", "", "000101") == {0: 2, 1: 4, 2: 6}
    assert follow(9, 12, 4, 2, "11", "", "00011")[2] == 5


def test_what_no_hard_problem_needs_goes_to_the_next_problems_of_the_set() -> None:
    assert follow(9, 12, 4, 2, "11", "11", "11") == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
    assert follow(9, 11, 4, 2, "11", "11", "11") == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 1}


def test_where_the_budget_ends_hard_problems_take_turns_and_the_hardest_is_first() -> None:
    assert follow(9, 12, 4, 3, "111", "1100", "1000") == {0: 3, 1: 4, 2: 5}
    assert follow(9, 12, 4, 3, "111", "1000", "1000") == {0: 3, 1: 5, 2: 4}
    assert follow(9, 15, 5, 3, "111", "11000", "10000") == {0: 3, 1: 6, 2: 6}


def test_a_problem_that_the_budget_cut_short_is_not_tried_on_only_because_it_was_solved() -> None:
    assert follow(9, 5, 4, 2, "11", "1") == follow(9, 5, 4, 2, "11", "0") == {0: 2, 1: 1, 2: 2}


def test_a_lucky_success_does_not_swallow_the_budget() -> None:
    assert follow(50, 80, 4, 2, "1", *["11"] * 49)[0] == 8


def test_a_set_that_is_used_up_ends_early() -> None:
    assert follow(3, 12, 4, 2, "11", "", "11") == {0: 2, 1: 4, 2: 2}


def test_a_set_that_ends_goes_on_with_what_it_has_first() -> None:
    # 8 are saved; problem 2 gets its first two tries, two more up to the plan, and two as a hard one.
    assert follow(3, 12, 6, 2, "11", "11", "000100000000") == {0: 2, 1: 2, 2: 8}


def test_a_small_set_is_gone_round_again_as_in_the_plain_plan_until_it_is_solved_often_enough() -> None:
    assert follow(2, 20, 3, 2, "11", "") == {0: 2, 1: 9}
    assert follow(2, 20, 3, 2, "11", "0000000001") == {0: 2, 1: 9}
    assert follow(2, 20, 3, 2, "11", "0000000011") == {0: 2, 1: 10}
    assert follow(2, 20, 3, 2, "11", "0000000101") == {0: 2, 1: 10}


def test_an_errored_episode_is_a_try_without_success() -> None:
    (problem,) = add_problems(1)
    outcomes: Outcomes = {EpisodeKey(problem.hash, 0): True, EpisodeKey(problem.hash, 1): None}
    assert len(due_slots([problem], 4, 4, 2, outcomes)) == 3


def test_a_plan_for_more_episodes_finds_the_first_rollouts_of_each_problem_again() -> None:
    _, played = Plan(1, 60, 60, 4, 2).play()
    due, _ = Plan(1, 60, 120, 4, 2).play()
    again = sum(slot.key in played for slot in due)
    assert again > 0.9 * len(played)


def test_an_empty_set_and_a_problem_that_stands_there_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no problems to play"):
        due_slots([], 4, 2, 1, {})
    with pytest.raises(ValueError, match="problems 0 and 2 have the same content"):
        due_slots([*add_problems(2), Sum(statement="0  + 1", answer=1)], 6, 2, 1, {})


def test_asking_again_is_quick() -> None:
    problems = add_problems(20_000)
    outcomes: Outcomes = {s.key: (s.env_idx + s.rollout_idx) % 9 == 0 for s in make_plan(problems, 160_000, 8)}
    started = time.process_time()
    assert len(due_slots(problems, 160_000, 8, 2, outcomes)) > 100_000
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rollouts_per_problem": 4, "enough_successes": 5}, "found 5; wanted at most collect.rollouts_per_problem"),
        ({"enough_successes": 1, "only_success": False}, "found with collect.only_success false"),
    ],
)
def test_a_number_of_successes_that_cannot_be_meant_is_refused_in_one_line(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        CollectConfig.model_validate(options)
    (mistake,) = caught.value.errors()
    assert "\n" not in str(mistake["ctx"]["error"])
