"""Problems for stateful_env: generated puzzles, files of puzzles, and the seeds of a Gymnasium environment.

A row of a file has `world` (plan_path, sokoban, sudoku, blocksworld, n_queens or gymnasium), `state` (the start, as
`World.read` of that world takes it) and perhaps `difficulty` and `solution` (moves; found by search if not given):

    {"world": "plan_path", "state": {"grid": ["P.#", "#.G"]}, "difficulty": 1}
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from envs.base import Split
from envs.problems.files import FileProblem, ProblemSourceError, Row, UnsolvableProblem, load_problems
from envs.problems.splits import select_split, split_of_builtin
from envs.worlds import WORLDS
from envs.worlds.base import GeneratedWorld, Move, World
from envs.worlds.blocksworld import Blocksworld
from envs.worlds.gymnasium_world import GymnasiumWorld, check_repeatable
from envs.worlds.n_queens import NQueens
from envs.worlds.plan_path import PlanPath
from envs.worlds.sokoban import Sokoban
from envs.worlds.sudoku import Sudoku

logger = logging.getLogger(__name__)

SPLIT_SIZES: dict[Split, int] = {"starter": 6_000, "train": 3_000, "heldout": 1_500}
WORLD_PERCENT: dict[type[GeneratedWorld], int] = {PlanPath: 35, Sokoban: 25, Sudoku: 15, Blocksworld: 13, NQueens: 12}
LEVEL_WEIGHTS = {1: 6, 2: 3, 3: 2, 4: 1}
"""How often each difficulty is drawn; one whose puzzles run out gives no more, and the others fill up."""
SEEDS = 1_000
"""Seeds of a Gymnasium environment that are looked at."""
FEW_STARTS = 50
"""With fewer different starts than this, its games begin after some random actions instead."""
MAX_OPENING = 30


@dataclass(frozen=True, kw_only=True)
class StatefulProblem(FileProblem):
    """A world in the state that it is to be solved from."""

    world: World
    solution: tuple[Move, ...] | None
    """Moves that solve it; None for a Gymnasium environment that does not publish what leads where."""


def stateful_problems(source: str | None, split: Split | None, world: str = "mixed") -> Sequence[StatefulProblem]:
    """Built-in problems or those of a file; `world` keeps those of one world only.

    Raises:
        ProblemSourceError: a file cannot be read, or has no problem of that world.
    """
    if source is not None:
        problems = load_problems(source, from_row)
        chosen = [p for p in problems if world in ("mixed", p.world.name)]
        if not chosen:
            raise ProblemSourceError(f"{source} has no problem of world {world}")
        return select_split(chosen, split)
    return [p for s in SPLIT_SIZES if split in (None, s) for p in builtin(s) if world in ("mixed", p.world.name)]


def from_row(row: Row) -> StatefulProblem:
    """A row of the layout above.

    Raises:
        ValueError: it is no such row.
        UnsolvableProblem: its solution does not solve it, or it has none and none was found.
    """
    name = row["world"]
    if not isinstance(name, str) or name not in WORLDS:
        raise ValueError(f"no world {name!r}; there are {', '.join(WORLDS)}")
    difficulty, solution = row.get("difficulty") or 0, row.get("solution")
    if type(difficulty) is not int or not isinstance(solution, list | None):
        raise ValueError("`difficulty` must be an integer, and `solution` a list of moves")
    return pose(WORLDS[name].read(row["state"]), difficulty, solution)


def pose(world: World, difficulty: int, solution: list[Move] | None = None) -> StatefulProblem:
    """The problem of solving a world from its present state, its solution found by search unless it is given.

    Raises:
        UnsolvableProblem: the solution does not solve it, or none was found.
    """
    moves = world.solve() if solution is None else solution
    if moves is None and world.is_searchable:
        raise UnsolvableProblem("no solution was found")
    if moves is not None:
        result = world.play(moves)
        if not result.world.is_solved:
            stopped = f" (move {result.count + 1}: {result.refusal})" if result.refusal else ""
            raise UnsolvableProblem(f"its solution does not lead to the goal{stopped}")
    return StatefulProblem(
        statement=f"{world.rules}\n{world.show()}",
        content=f"{world.name}\n{world.content}",
        difficulty=difficulty,
        world=world,
        solution=None if moves is None else tuple(moves),
    )


@cache
def builtin(split: Split) -> tuple[StatefulProblem, ...]:
    """The generated problems of a split: the same ones in every process, all worlds and difficulties mixed."""
    problems = [problem for world in WORLD_PERCENT for problem in _generated(world)[split]]
    return tuple(random.Random(f"stateful_env {split}").sample(problems, len(problems)))


@cache
def _generated(world: type[GeneratedWorld]) -> dict[Split, list[StatefulProblem]]:
    """All generated problems of one world."""
    wanted = {split: size * WORLD_PERCENT[world] // 100 for split, size in SPLIT_SIZES.items()}
    found: dict[Split, list[StatefulProblem]] = {split: [] for split in SPLIT_SIZES}
    seen = set()
    for level, start, content, split in _starts(world, random.Random(f"stateful_env {world.name}")):
        if content not in seen and len(found[split]) < wanted[split]:
            seen.add(content)
            found[split].append(pose(start, level))
        if all(len(found[split]) == size for split, size in wanted.items()):
            break
    return found


def _starts(world: type[GeneratedWorld], rng: random.Random) -> Iterator[tuple[int, GeneratedWorld, str, Split]]:
    """Endless starts of a world, each with its difficulty, content and split; they come again, turned or mirrored."""
    levels, weights = list(LEVEL_WEIGHTS), list(LEVEL_WEIGHTS.values())
    while True:
        (level,) = rng.choices(levels, weights)
        start = world.generate(level, rng)
        content = f"{world.name}\n{start.content}"
        yield level, start, content, split_of_builtin(content)


def drawn_problems(split: Split, seed: int) -> Iterator[StatefulProblem]:
    """Endless generated problems of a split, mixed like the built-in ones; more than those, and some come again."""
    rng = random.Random(seed)
    streams = {world: _starts(world, rng) for world in WORLD_PERCENT}
    while True:
        (stream,) = rng.choices(list(streams.values()), list(WORLD_PERCENT.values()))
        yield next(pose(start, level) for level, start, _, of in stream if of == split)


def gymnasium_problems(gymnasium_id: str, settings: dict[str, Any], split: Split | None) -> list[StatefulProblem]:
    """Games of one Gymnasium environment that differ in their start or their luck; a fifth is held out.

    Those that cannot be won are left out, and the log says how many. There is no starter split: nothing of it was
    shown to the included policy.

    Raises:
        ValueError: the environment cannot be had or played.
    """
    problems, unsolvable = [], 0
    for content, start in _gymnasium_starts(gymnasium_id, json.dumps(settings, sort_keys=True)).items():
        if split in (None, "heldout" if split_of_builtin(content) == "heldout" else "train"):
            try:
                problems.append(pose(start, difficulty=0))
            except UnsolvableProblem:
                unsolvable += 1
    if unsolvable:
        total = len(problems) + unsolvable
        logger.warning("%s: %d of %d games cannot be won and are left out", gymnasium_id, unsolvable, total)
    return problems


@cache
def _gymnasium_starts(gymnasium_id: str, settings: str) -> dict[str, GymnasiumWorld]:
    """Different starts, by content."""
    check_repeatable(gymnasium_id, settings)
    seeded = [GymnasiumWorld(gymnasium_id, settings, seed) for seed in range(SEEDS)]
    starts = {f"{world.name}\n{world.content}": world for world in reversed(seeded)}
    if len(starts) < FEW_STARTS:
        opened = [_after_opening(world) for world in seeded]
        starts = {f"{world.name}\n{world.content}": world for world in reversed(opened) if not world.is_over}
    return dict(reversed(starts.items()))


def _after_opening(world: GymnasiumWorld) -> GymnasiumWorld:
    rng = random.Random(world.seed)
    first, last = world.action_range
    return world.play([rng.randint(first, last) for _ in range(rng.randint(0, MAX_OPENING))]).world
