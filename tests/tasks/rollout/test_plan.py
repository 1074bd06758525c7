"""Plans, seeds, and what makes two collections the same."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import envs
from envs.base import EnvConfig
from envs.sandbox.base import SandboxConfig
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import EpisodeKey
from tasks.rollout.plan import collection_identity, collection_key, episode_seed, make_plan
from tests.tasks.rollout.adding_game import AddingGame, Sum, add_problems

PARTS = ("problems", "model", "chat_template_args", "policies", "adapters")


def key(env: dict[str, Any] | None = None, sandbox: dict[str, Any] | None = None, **collect: Any) -> str:
    changed = {name: collect.pop(name) for name in PARTS if name in collect}
    parts: dict[str, Any] = {
        "problems": add_problems(5),
        "model": "m",
        "chat_template_args": {},
        "policies": {},
        "adapters": {},
    } | changed
    identity = collection_identity(
        env_class=AddingGame,
        env=EnvConfig(name="adding", **(env or {})),
        sandbox=SandboxConfig(**(sandbox or {})),
        collect=CollectConfig(**collect),
        **parts,
    )
    return collection_key(identity)


def test_a_plan_plays_each_problem_as_often_as_asked_before_the_next() -> None:
    slots = make_plan(add_problems(3), 5, rollouts_per_problem=2)
    assert [(s.env_idx, s.rollout_idx) for s in slots] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_a_set_that_is_used_up_is_gone_round_again_without_repeating_a_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        slots = make_plan(add_problems(3), 20, rollouts_per_problem=2)
    assert len({s.key for s in slots}) == 20
    assert [(s.env_idx, s.rollout_idx) for s in slots[6:8]] == [(0, 2), (0, 3)]
    assert [r.message for r in caplog.records] == ["20 episodes of 3 problems: the set is gone round again"]


def test_a_plan_for_more_episodes_starts_with_the_plan_for_fewer() -> None:
    for rollouts in (1, 2, 5):
        long = make_plan(add_problems(7), 50, rollouts)
        for count in range(1, 50):
            assert make_plan(add_problems(7), count, rollouts) == long[:count]


def test_an_empty_problem_set_and_one_with_a_problem_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no problems to play"):
        make_plan([], 5, 1)
    with pytest.raises(ValueError, match="problems 0 and 2 have the same content"):
        make_plan([*add_problems(2), Sum(statement="0  + 1", answer=1)], 3, 1)


def test_seeds_are_the_same_forever_and_differ_by_everything_that_names_a_request() -> None:
    base = episode_seed(0, EpisodeKey("ab", 0), "adder", 0)
    assert base == 1481665843
    others = [
        episode_seed(1, EpisodeKey("ab", 0), "adder", 0),
        episode_seed(0, EpisodeKey("ac", 0), "adder", 0),
        episode_seed(0, EpisodeKey("ab", 1), "adder", 0),
        episode_seed(0, EpisodeKey("ab", 0), "checker", 0),
        episode_seed(0, EpisodeKey("ab", 0), "adder", 1),
    ]
    assert len({base, *others}) == 6
    assert all(0 <= seed < 2**31 for seed in others)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"batch": "2031-01-01"},
        {"model": "other"},
        {"chat_template_args": {"enable_thinking": False}},
        {"by_role": {"adder": {"temperature": 0.5}}},
        {"by_role": {"adder": {"stop": ["</a>"]}}},
        {"by_role": {"adder": {"seed": 1}}},
        {"policies": {"adder": "own"}},
        {"adapters": {"shared_model": "lora"}},
        {"problems": add_problems(6)},
        {"problems": [*add_problems(4), Sum(statement="4 + 1", answer=99)]},
        {"env": {"max_turns": 2}},
        {"env": {"options": {"hint": "count"}}},
        {"sandbox": {"cpu_s": 1.0}},
    ],
    ids=str,
)
def test_whatever_changes_samples_or_verdicts_is_another_collection(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"num_episodes": 7},
        {"rollouts_per_problem": 3},
        {"only_success": False},
        {"collect_mode": "agent"},
        {"turns": "last"},
        {"max_per_problem": 1, "prefer": "random"},
        {"rollouts_per_problem": 3, "enough_successes": 2},
        {"data_dir": Path("elsewhere")},
        {"max_error_rate": 0.5},
        {"by_role": {"adder": {}}},
        {"by_role": {"adder": {"temperature": 1.0, "seed": 0}}},
        {"env": {"dataset": "a.jsonl"}},
        {"env": {"options": {"hint": ""}}},
        {"env": {"roles": ("adder",)}},
        {"env": {"timeout_s": 5.0}},
        {"sandbox": {"min_tier": "A"}},
        {"sandbox": {"allow_unsafe": True}},
    ],
    ids=str,
)
def test_whatever_does_not_is_the_same_collection(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def rules(env: str, *folders: Path) -> str:
    """The rules' fingerprint as a fresh process finds it, with these folders first on its path."""
    script = (
        "import sys; from envs import load_env_class; from tasks.rollout.fingerprint import env_fingerprint\n"
        "print(env_fingerprint(load_env_class(sys.argv[1])))"
    )
    path = os.pathsep.join(map(str, [*folders, Path(envs.__file__).parents[1]]))
    ended = subprocess.run(
        [sys.executable, "-P", "-B", "-c", script, env],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("file", ["grading/math_worker.py", "grading/check_guest.py", "sandbox/zygote/guest.py"])
def test_a_changed_judge_or_sandbox_that_is_started_by_path_replays_episodes(tmp_path: Path, file: str) -> None:
    copy = shutil.copytree(Path(envs.__file__).parent, tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    before = rules("math_env", tmp_path)
    changed = copy / file
    source = changed.read_text()
    changed.write_text(source + "\n# a comment\n")
    assert rules("math_env", tmp_path) == before
    changed.write_text(source + "\nchanged = 1\n")
    assert rules("math_env", tmp_path) != before


def test_a_prompt_in_a_module_next_to_a_users_env_is_one_of_its_rules(tmp_path: Path) -> None:
    (tmp_path / "my_env.py").write_text(
        "import json, yaml, my_prompts\nfrom envs.base import Env\nclass MyEnv(Env):\n    ask_with = my_prompts.ASK\n"
    )
    (tmp_path / "my_prompts.py").write_text("from my_words import ASK\n")
    (tmp_path / "my_words.py").write_text("ASK = 'Add.'\n")
    before = rules("my_env:MyEnv", tmp_path)
    assert rules("my_env:MyEnv", tmp_path) == before
    (tmp_path / "my_words.py").write_text("ASK = 'Sum.'\n")
    assert rules("my_env:MyEnv", tmp_path) != before
