"""What a collection says of its problems: how many come up at most, and where each stands in its set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from envs.base import EnvConfig
from envs.sandbox.base import SandboxConfig
from tasks.engines.base import Sampling
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.evaluation.config import EvaluateConfig
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.config import CollectConfig, RoleSampling
from tasks.rollout.episode import EpisodeKey
from tasks.rollout.journal import Journal
from tasks.rollout.plan import due_slots
from tests.tasks.rollout.adding_game import add_problems
from tests.tasks.rollout.playing import IDENTITY

PROBLEMS = add_problems(20)


def collection(
    num_episodes: int, rollouts: int, enough: int | None = None, left_out: frozenset[str] = frozenset()
) -> Collection:
    collect = CollectConfig(num_episodes=num_episodes, rollouts_per_problem=rollouts, enough_successes=enough)
    config = PlayConfig(
        env=EnvConfig(name="tests.tasks.rollout.adding_game:AddingGame"),
        model=ModelConfig(),
        engine=EngineConfig(kind="scripted", script="tests.tasks.rollout.playing:answer_or_not"),
        sandbox=SandboxConfig(),
        collect=collect,
    )
    return Collection(config, PROBLEMS, left_out=left_out)


def problems_played(num_episodes: int, rollouts: int, enough: int | None, goes: Sequence[bool]) -> int:
    """How many problems come up if the episodes, in the order in which they become due, go like that."""
    outcomes: dict[EpisodeKey, bool | None] = {}
    while True:
        due = due_slots(PROBLEMS, num_episodes, rollouts, enough, outcomes)
        owed = [slot.key for slot in due if slot.key not in outcomes]
        if not owed:
            return len({slot.env_idx for slot in due})
        outcomes |= zip(owed, goes[len(outcomes) :], strict=False)


@pytest.mark.parametrize(
    ("rollouts", "enough"), [(r, e) for r in range(1, 5) for e in (None, *range(1, r + 1))], ids=str
)
def test_no_more_problems_come_up_than_are_checked_however_the_episodes_go(rollouts: int, enough: int | None) -> None:
    for num_episodes in range(1, 8):
        most = collection(num_episodes, rollouts, enough).most_problems
        ways = itertools.product([True, False], repeat=num_episodes if enough else 1)
        played = max(problems_played(num_episodes, rollouts, enough, way * num_episodes) for way in ways)
        assert most - (enough is not None) <= played <= most


def test_a_plan_that_ends_early_comes_to_one_problem_more_than_its_successes_pay_for() -> None:
    assert problems_played(4, 3, 2, [True] * 4) == 3 == collection(4, 3, 2).most_problems


@pytest.mark.parametrize("enough", [None, 1])
def test_a_slot_tells_where_its_problem_stands_in_the_whole_set(tmp_path: Path, enough: int | None) -> None:
    chosen = collection(6, 2, enough, left_out=frozenset({PROBLEMS[0].hash, PROBLEMS[2].hash}))
    with Journal.open(tmp_path, IDENTITY) as journal:
        slots = chosen.due(journal)
    assert [slot.env_idx for slot in slots] == ([1, 1, 3, 3, 4, 4] if enough is None else [1, 3, 4])
    assert all(PROBLEMS[slot.env_idx] is slot.problem for slot in slots)


def test_roles_keep_their_sampling_in_an_evaluation_but_for_its_temperature_and_seed() -> None:
    chosen = collection(4, 1)
    by_role = {"adder": RoleSampling(temperature=0.2, seed=9, max_tokens=7)}
    collect = chosen.config.collect.model_copy(update={"by_role": by_role})
    config = chosen.config.model_copy(update={"collect": collect})
    played = Collection.for_evaluation(config, EvaluateConfig(temperature=0.5, seed=3), {}).config.collect
    assert played.sampling("adder") == Sampling(temperature=0.5, max_tokens=7)
    assert played.sampling_seed("adder") == played.sampling_seed("checker") == 3


def test_a_batch_draws_other_replies_for_a_role_with_a_seed_of_its_own_too() -> None:
    monday, tuesday = (CollectConfig(batch=day, by_role={"adder": RoleSampling(seed=9)}) for day in ("mon", "tue"))
    seeds = [c.sampling_seed(role) for c in (monday, tuesday) for role in ("adder", "checker")]
    assert len(set(seeds)) == 4
