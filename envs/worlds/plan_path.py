"""Plan-path: lead P over a grid with walls to G."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from envs.worlds.base import GeneratedWorld, IllegalMove, Move, shortest
from envs.worlds.grid import (
    DIRECTIONS,
    Cell,
    Grid,
    at,
    cells_with,
    put,
    read_direction,
    read_grid,
    show_grid,
    step_from,
    turned_and_mirrored,
)

LEVELS = {1: (4, 1, 3), 2: (5, 3, 5), 3: (5, 5, 8), 4: (6, 7, 14)}
"""For each difficulty: side of the grid, fewest and most moves of the shortest way."""


@dataclass(frozen=True)
class PlanPath(GeneratedWorld):
    """A grid of free cells `.`, walls `#`, the player `P` and the goal `G`, which is gone once P stands on it."""

    grid: Grid

    name = "plan_path"
    stdin_format = '{"grid": ["P.#", "..G"]}'

    @classmethod
    def generate(cls, difficulty: int, rng: random.Random) -> Self:
        side, fewest, most = LEVELS[difficulty]
        while True:
            cells = rng.choices(".#", (70, 30), k=side * side)
            start, goal = rng.sample(range(side * side), 2)
            cells[start], cells[goal] = "P", "G"
            world = cls(tuple("".join(cells[i : i + side]) for i in range(0, side * side, side)))
            way = world.solve()
            if way is not None and fewest <= len(way) <= most:
                return world

    @classmethod
    def read(cls, state: Any) -> Self:
        grid = read_grid(state, ".#PG")
        if len(cells_with(grid, "P")) != 1 or len(cells_with(grid, "G")) != 1:
            raise ValueError("the grid must have one P and one G")
        return cls(grid)

    @property
    def data(self) -> dict[str, Any]:
        return {"grid": list(self.grid)}

    @property
    def rules(self) -> str:
        return 'Lead P to G; # is a wall. Moves: "up", "down", "left", "right".'

    def show(self) -> str:
        return show_grid(self.grid)

    def after(self, move: Move) -> Self:
        direction = read_direction(move)
        (here,) = cells_with(self.grid, "P")
        there = step_from(here, direction)
        if at(self.grid, there) == "#":
            raise IllegalMove("a wall or the edge is there")
        return type(self)(put(self.grid, {here: ".", there: "P"}))

    def solve(self) -> list[Move] | None:
        if self.is_solved:
            return []
        (here,), (goal,) = cells_with(self.grid, "P"), cells_with(self.grid, "G")
        return shortest(here, self._steps, lambda cell: cell == goal)

    def _steps(self, cell: Cell) -> Iterator[tuple[str, Cell]]:
        for direction in DIRECTIONS:
            there = step_from(cell, direction)
            if at(self.grid, there) != "#":
                yield direction, there

    @property
    def content(self) -> str:
        reached = cells_with(self.grid, "P")
        for cell in reached:
            reached += [there for _, there in self._steps(cell) if there not in reached]
        # Cells that nobody can reach might as well be walls.
        walls = {cell: "#" for cell in cells_with(self.grid, ".") if cell not in reached}
        return "\n".join(min(turned_and_mirrored(put(self.grid, walls))))

    @property
    def is_solved(self) -> bool:
        return not cells_with(self.grid, "G")
