"""Blocksworld: rebuild stacks of blocks, one block at a time."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from envs.worlds.base import GeneratedWorld, IllegalMove, Move

LEVELS = {1: (3, 6, 1, 2), 2: (4, 6, 3, 4), 3: (5, 6, 5, 6), 4: (6, 7, 7, 9)}
"""For each difficulty: fewest and most blocks, fewest and most moves of the solution."""
MAX_BLOCKS = 8
NAMES = string.ascii_uppercase[:MAX_BLOCKS]
TABLE = "table"

Stack = tuple[str, ...]
"""Blocks from bottom to top."""
Stacks = tuple[Stack, ...]


@dataclass(frozen=True)
class Blocksworld(GeneratedWorld):
    """Stacks of blocks with names of one letter, and the stacks that they are to become."""

    now: Stacks
    goal: Stacks

    name = "blocksworld"
    stdin_format = '{"now": [["A", "B"], ["C"]], "goal": [["A"], ["C", "B"]]}, each stack from bottom to top'

    @classmethod
    def generate(cls, difficulty: int, rng: random.Random) -> Self:
        fewest_blocks, most_blocks, fewest, most = LEVELS[difficulty]
        while True:
            now = _stack_up(rng.sample(NAMES, rng.randint(fewest_blocks, most_blocks)), rng)
            goal = _shuffled(now, rng.randint(fewest, 2 * most), rng)
            if fewest <= len(cls(now, goal).solve()) <= most:
                return cls(now, goal)

    @classmethod
    def read(cls, state: Any) -> Self:
        if not isinstance(state, dict):
            raise ValueError('`state` must be an object with the stacks "now" and "goal"')
        world = cls(_read_stacks(state.get("now")), _read_stacks(state.get("goal")))
        if sorted(itertools.chain(*world.now)) != sorted(itertools.chain(*world.goal)):
            raise ValueError('"now" and "goal" must be made of the same blocks')
        if world.is_solved:
            raise ValueError('"now" and "goal" are the same stacks')
        return world

    @property
    def data(self) -> dict[str, Any]:
        return {"now": [list(stack) for stack in self.now], "goal": [list(stack) for stack in self.goal]}

    @property
    def rules(self) -> str:
        return (
            "Rebuild the stacks, written from bottom to top. "
            'Moves: [block, target] puts a top block onto another top block or the "table".'
        )

    def show(self) -> str:
        return f"Now: {_as_text(self.now)}\nGoal: {_as_text(self.goal)}"

    def after(self, move: Move) -> Self:
        if not (isinstance(move, list) and len(move) == 2 and all(isinstance(part, str) for part in move)):
            raise IllegalMove('a move is ["block", "target"]')
        block, target = move
        tops = {stack[-1] for stack in self.now}
        if block not in tops:
            raise IllegalMove("the block that is moved must be on top of a stack")
        if block == target or target not in tops | {TABLE}:
            raise IllegalMove(f'the target must be another top block or "{TABLE}"')
        if target == TABLE and (block,) in self.now:
            raise IllegalMove("the block is on the table already")
        lifted = [stack[:-1] if stack[-1] == block else stack for stack in self.now]
        put = [(*stack, block) if stack[-1:] == (target,) else stack for stack in lifted if stack]
        return type(self)((*put, (block,)) if target == TABLE else tuple(put), self.goal)

    def solve(self) -> list[Move]:
        """Every block that can go to its place goes there; if none can, one that is in the way goes to the table."""
        below = {block: under for stack in self.goal for under, block in itertools.pairwise((TABLE, *stack))}
        moves: list[Move] = []
        world = self
        while not world.is_solved:
            placed = {block for stack in world.now for block in _in_place(stack, below)}
            tops = [stack[-1] for stack in world.now]
            ready = [
                block
                for block in tops
                if block not in placed and (below[block] == TABLE or below[block] in placed.intersection(tops))
            ]
            in_the_way = [stack[-1] for stack in world.now if len(stack) > 1 and stack[-1] not in placed]
            move = [ready[0], below[ready[0]]] if ready else [in_the_way[0], TABLE]
            moves.append(move)
            world = world.after(move)
        return moves

    @property
    def content(self) -> str:
        places = {b: (len(stack), height) for stack in self.goal for height, b in enumerate(stack)}
        look = {stack: (len(stack), [places[block] for block in stack]) for stack in self.now}
        alike = [
            list(group) for _, group in itertools.groupby(sorted(self.now, key=look.__getitem__), look.__getitem__)
        ]
        orders = itertools.product(*(itertools.permutations(group) for group in alike))
        return min(self._renamed(itertools.chain(*order)) for order in orders)

    def _renamed(self, stacks: Iterator[Stack]) -> str:
        """The puzzle with its blocks named in the order in which they stand in `stacks`."""
        now = list(stacks)
        names = dict(zip(itertools.chain(*now), string.ascii_uppercase, strict=False))
        goal = sorted("".join(names[block] for block in stack) for stack in self.goal)
        return " ".join(["".join(names[b] for b in stack) for stack in now]) + " / " + " ".join(goal)

    @property
    def is_solved(self) -> bool:
        return sorted(self.now) == sorted(self.goal)


def _in_place(stack: Stack, below: dict[str, str]) -> Stack:
    """The lowest blocks of a stack, as far up as each stands on what it shall stand on."""
    pairs = itertools.takewhile(lambda pair: below[pair[1]] == pair[0], itertools.pairwise((TABLE, *stack)))
    return tuple(block for _, block in pairs)


def _stack_up(names: list[str], rng: random.Random) -> Stacks:
    stacks: list[Stack] = []
    for name in names:
        index = rng.randint(0, len(stacks))
        stacks[index : index + 1] = [(*(stacks[index] if index < len(stacks) else ()), name)]
    return tuple(stacks)


def _shuffled(stacks: Stacks, num_moves: int, rng: random.Random) -> Stacks:
    """The stacks after some moves at random, in another order."""
    for _ in range(num_moves):
        source, target = rng.randrange(len(stacks)), rng.randint(0, len(stacks))
        if source == target:
            continue
        onto = stacks[target] if target < len(stacks) else ()
        others = [stack for i, stack in enumerate(stacks) if i not in (source, target)]
        moved = [stacks[source][:-1], (*onto, stacks[source][-1])]
        stacks = tuple(stack for stack in [*others, *moved] if stack)
    return tuple(rng.sample(stacks, len(stacks)))


def _read_stacks(rows: Any) -> Stacks:
    if not isinstance(rows, list) or not all(isinstance(row, list) and row for row in rows):
        raise ValueError('"now" and "goal" must be lists of stacks, each a list of blocks from bottom to top')
    blocks = [block for row in rows for block in row]
    if not all(isinstance(block, str) and block in string.ascii_uppercase and len(block) == 1 for block in blocks):
        raise ValueError("a block is one capital letter")
    if not 1 < len(blocks) <= MAX_BLOCKS or len(set(blocks)) != len(blocks):
        raise ValueError(f"there must be 2 to {MAX_BLOCKS} blocks, each once")
    return tuple(tuple(row) for row in rows)


def _as_text(stacks: Stacks) -> str:
    return " | ".join(" ".join(stack) for stack in stacks)
