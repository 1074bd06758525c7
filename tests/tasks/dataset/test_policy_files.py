"""The tasks that write the files of each policy, run as plain functions on a journal."""

from __future__ import annotations

import asyncio
import json

import pytest

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from envs.base import EnvConfig, Problem
from envs.sandbox.base import SandboxConfig
from tasks.bring import bring_control
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.relabel import relabel
from tasks.rollout.artifact import content_hash
from tasks.rollout.collection import PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import Journal
from tasks.rollout.plan import make_plan
from tasks.validate import validate

PROBLEMS = [Problem(statement=f"What is {i}?") for i in range(20)]
ROLES = ("reasoning_generator", "tool_generator")
POLICIES = dict(zip(ROLES, ("thinker", "coder"), strict=True))


def config(**collect):
    return PlayConfig(
        env=EnvConfig(name="math_env", roles=ROLES),
        model=ModelConfig(),
        engine=EngineConfig(),
        sandbox=SandboxConfig(),
        collect=CollectConfig(**collect),
        policies=POLICIES,
    )


@pytest.fixture
def episodes(build, tmp_path):
    """Twenty episodes of two agents, every other one solved."""

    async def write(journal):
        for i, problem in enumerate(PROBLEMS):
            told = [{"role": "user", "content": problem.statement}]
            turns = [
                build.turn(role, success=i % 2 == 0, policy_name=policy, messages=told, reply=f"{role} {i}")
                for role, policy in POLICIES.items()
            ]
            await journal.append(build.episode(i, i % 2 == 0, turns, problem_hash=problem.hash))

    with Journal.open(tmp_path / "played", {"env": "math_env"}) as journal:
        asyncio.run(write(journal))
        return journal.publish(make_plan(PROBLEMS, 20, 1))


def test_a_policy_with_one_agent_has_nothing_to_balance(episodes, tmp_path):
    ratios = dict(zip(ROLES, (0.7, 0.3), strict=True))
    for role, policy in POLICIES.items():
        dataset = validate.fn(episodes, config(agent_ratios=ratios), policy, tmp_path / "data", {})
        assert dataset.funnel.kept_by_agent == {role: 10}
        control = relabel.fn(episodes, config(agent_ratios=ratios), policy, "failures", 10, tmp_path / "data")
        assert control.rows == 10


def test_another_control_in_the_same_data_folder_leaves_the_first_one_as_it_is(episodes, tmp_path):
    few, all_there_are = (relabel.fn(episodes, config(), "coder", "failures", most, tmp_path) for most in (3, 50))
    assert few.path.parent == all_there_are.path.parent == tmp_path / "controls"
    assert (few.rows, all_there_are.rows) == (3, 10)
    assert few.path.name.startswith("coder-failures-")
    for ref in (few, all_there_are):
        assert content_hash(ref.path) == ref.sha256
        assert len(ref.path.read_text().splitlines()) == ref.rows
    again = relabel.fn(episodes, config(), "coder", "failures", 3, tmp_path)
    assert again == few


def test_a_control_from_another_data_folder_is_brought_here(episodes, tmp_path):
    there = relabel.fn(episodes, config(), "thinker", "shuffled verdicts", 5, tmp_path / "there")
    here = bring_control(there, tmp_path / "here")
    assert here.path == tmp_path / "here" / "controls" / there.path.name
    assert here.path.read_bytes() == there.path.read_bytes()
    assert {json.loads(line)["metadata"]["policy_name"] for line in here.path.open()} == {"thinker"}
    assert bring_control(there, tmp_path / "there") == there
