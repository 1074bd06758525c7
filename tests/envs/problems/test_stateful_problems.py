"""Problems of stateful_env: built-in splits, files, and the seeds of Gymnasium environments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from envs.base import EnvConfig, Split, problem_set_digest
from envs.problems.__main__ import main
from envs.problems.files import ProblemSourceError
from envs.problems.stateful_problems import SPLIT_SIZES, WORLD_PERCENT, StatefulProblem, stateful_problems
from envs.stateful_env import StatefulEnv
from envs.worlds import GENERATED_WORLDS

SPLITS: tuple[Split, ...] = ("starter", "train", "heldout")
ROWS: list[dict[str, Any]] = [
    {"world": "plan_path", "state": {"grid": ["P.#", "#.G"]}, "difficulty": 1},
    {"world": "sokoban", "state": {"grid": ["PBG"]}, "solution": ["right"]},
    {"world": "gymnasium", "state": {"gymnasium_id": "Taxi-v3", "seed": 3}},
]


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def options(**given: Any) -> EnvConfig:
    return EnvConfig(name="stateful_env", options=given)


def test_splits_share_no_content_and_hold_every_world_at_every_difficulty() -> None:
    by_split = {split: stateful_problems(None, split) for split in SPLITS}
    hashes = [problem.hash for problems in by_split.values() for problem in problems]
    assert len(set(hashes)) == len(hashes)
    for split, problems in by_split.items():
        assert len(problems) == SPLIT_SIZES[split]
        shares = {world.name: SPLIT_SIZES[split] * percent / 100 for world, percent in WORLD_PERCENT.items()}
        assert Counter(p.world.name for p in problems) == shares
        assert {(p.world.name, p.difficulty) for p in problems} == {
            (world.name, level) for world in GENERATED_WORLDS for level in (1, 2, 3, 4)
        }


def test_the_solution_of_every_held_out_problem_solves_it() -> None:
    for problem in stateful_problems(None, "heldout"):
        assert problem.solution is not None and not problem.world.is_over
        assert problem.world.play(problem.solution).world.is_solved


def test_built_in_problems_are_the_same_in_every_process() -> None:
    program = (
        "from envs.base import problem_set_digest as digest\n"
        "from envs.problems.stateful_problems import stateful_problems\n"
        "print(*(digest(stateful_problems(None, split)) for split in ('train', 'heldout')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [problem_set_digest(stateful_problems(None, s)) for s in ("train", "heldout")]


def test_prompts_and_solutions_are_short() -> None:
    for problem in stateful_problems(None, "heldout"):
        assert len(problem.statement) < 350
        assert len(json.dumps(problem.solution, separators=(",", ":"))) < 150


def test_the_option_world_keeps_the_problems_of_one_world() -> None:
    for world in GENERATED_WORLDS:
        problems = StatefulEnv.problems_for(options(world=world.name), None, "heldout")
        assert len(problems) == SPLIT_SIZES["heldout"] * WORLD_PERCENT[world] / 100
        assert {type(p.world) for p in problems} == {world}
    with pytest.raises(ValueError, match="plan_path"):
        StatefulEnv.problems_for(options(world="chess"), None, "train")


def test_a_file_is_read_and_its_missing_solutions_are_found(tmp_path: Path) -> None:
    path, box, taxi = stateful_problems(write(tmp_path / "p.jsonl", *ROWS), None)
    assert (path.solution, path.difficulty, box.solution) == (("right", "down", "right"), 1, ("right",))
    assert taxi.solution is not None and taxi.world.play(taxi.solution).world.is_solved
    (only,) = StatefulEnv.problems_for(options(world="sokoban"), str(tmp_path / "p.jsonl"), None)
    assert only == box


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"world": "plan_path", "state": {"grid": ["P#G"]}}, "no solution was found"),
        (ROWS[0] | {"solution": ["right", "down"]}, "does not lead to the goal"),
        (ROWS[0] | {"solution": ["down"]}, "does not lead to the goal"),
    ],
)
def test_an_unsolvable_problem_is_reported_by_its_id_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, row: Any, reason: str
) -> None:
    source = write(tmp_path / "p.jsonl", *ROWS, row | {"id": "puzzle-77"})
    monkeypatch.setattr(sys, "argv", ["problems", "check", source, "--env.name", "stateful_env"])
    assert main() == 0
    said = capsys.readouterr().out
    assert "3 of 3 reference answers pass" in said
    assert f"puzzle-77  {reason}" in said.replace("its solution ", "")
    assert [p.world.name for p in stateful_problems(source, None)] == ["plan_path", "sokoban", "gymnasium"]


@pytest.mark.parametrize(
    "row",
    [
        {"world": "chess", "state": {}},
        {"world": ["plan_path"], "state": {}},
        {"world": "plan_path", "state": {"grid": ["PX"]}},
        {"world": "plan_path"},
        {"world": "plan_path", "state": {"grid": ["PG"]}, "solution": "right"},
        {"world": "plan_path", "state": {"grid": ["PG"]}, "difficulty": "hard"},
    ],
)
def test_a_row_in_the_wrong_form_is_named(tmp_path: Path, row: Any) -> None:
    with pytest.raises(ProblemSourceError, match=r"p\.jsonl:4: "):
        stateful_problems(write(tmp_path / "p.jsonl", *ROWS, row), None)


@pytest.mark.parametrize("gymnasium_id", ["FrozenLake-v1", "Taxi-v3", "CliffWalking-v1"])
def test_the_seeds_of_a_gymnasium_environment_are_problems_with_disjoint_splits(gymnasium_id: str) -> None:
    config = options(gymnasium_id=gymnasium_id)
    train = StatefulEnv.problems_for(config, None, "train")
    heldout = StatefulEnv.problems_for(config, None, "heldout")
    assert len(train) > len(heldout) > 1
    assert not {p.hash for p in train} & {p.hash for p in heldout}
    assert all(isinstance(p, StatefulProblem) and p.solution for p in (*train, *heldout))
    assert len({p.statement for p in heldout}) > 1 or gymnasium_id == "FrozenLake-v1"


def test_two_seeds_that_start_a_game_without_chance_alike_are_one_problem() -> None:
    taxi = StatefulEnv.problems_for(options(gymnasium_id="Taxi-v3"), None, None)
    assert len({p.statement for p in taxi}) == len(taxi) < 300
    lake = options(gymnasium_id="FrozenLake-v1", gymnasium_kwargs={"is_slippery": False})
    assert len(StatefulEnv.problems_for(lake, None, None)) < 12
