"""Sudoku on 4x4, 6x6 and 9x9 cells."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, permutations, product
from operator import itemgetter
from typing import Any, Self

from envs.worlds.base import MAX_STATES, GeneratedWorld, IllegalMove, Move
from envs.worlds.grid import Cell, Grid, cells_with, put, read_grid, read_numbers, turned_and_mirrored

LEVELS = {1: (6, 1, 2), 2: (4, 2, 4), 3: (4, 5, 8), 4: (6, 5, 9)}
"""For each difficulty: side of the grid, fewest and most empty cells."""
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by side of the grid."""


@dataclass(frozen=True)
class Sudoku(GeneratedWorld):
    """Rows of digits, 0 for an empty cell."""

    given: Grid
    """The cells that were filled at the start and stay so."""
    grid: Grid

    name = "sudoku"
    stdin_format = '{"grid": ["1234", "3412", "2043", "4321"]}, 0 for an empty cell'

    @classmethod
    def generate(cls, difficulty: int, rng: random.Random) -> Self:
        side, fewest, most = LEVELS[difficulty]
        full = _full_grid(side, rng)
        while True:
            emptied = rng.sample(cells_with(full, "123456"), rng.randint(fewest, most))
            grid = put(full, dict.fromkeys(emptied, "0"))
            if len(list(islice(_completions(grid), 2))) == 1:
                return cls(grid, grid)

    @classmethod
    def read(cls, state: Any) -> Self:
        grid = read_grid(state, "0123456789")
        if len(grid) not in BOXES or len(grid[0]) != len(grid):
            raise ValueError("the grid of a Sudoku has 4x4, 6x6 or 9x9 cells")
        if any(int(digit) > len(grid) for row in grid for digit in row):
            raise ValueError(f"the digits of this grid are 0 to {len(grid)}")
        for cell in cells_with(grid, "123456789"):
            if _clash(grid, cell, grid[cell[0]][cell[1]]):
                raise ValueError("a digit stands twice in a row, column or box of the grid")
        if not cells_with(grid, "0"):
            raise ValueError("the grid has no empty cell")
        return cls(grid, grid)

    @property
    def data(self) -> dict[str, Any]:
        return {"grid": list(self.grid)}

    @property
    def rules(self) -> str:
        side = len(self.grid)
        rows, columns = BOXES[side]
        return (
            f"Sudoku: fill every 0 so that each row, column and box of {rows}x{columns} cells holds 1 to {side} once. "
            "Moves: [row, column, digit], counted from 1; digit 0 empties a cell that you filled."
        )

    def show(self) -> str:
        return "\n".join(self.grid)

    def after(self, move: Move) -> Self:
        side = len(self.grid)
        row, column, digit = read_numbers(move, 3)
        if not (1 <= row <= side and 1 <= column <= side and 0 <= digit <= side):
            raise IllegalMove(f"rows, columns and digits end at {side}")
        cell = (row - 1, column - 1)
        if self.given[cell[0]][cell[1]] != "0":
            raise IllegalMove("that cell was given")
        emptied = put(self.grid, {cell: "0"})
        if digit and (where := _clash(emptied, cell, str(digit))):
            raise IllegalMove(f"{digit} is already in its {where}")
        return type(self)(self.given, put(emptied, {cell: str(digit)}))

    def solve(self) -> list[Move] | None:
        full = next(_completions(self.grid), None) or next(_completions(self.given), None)
        if full is None:
            return None
        filled = [cell for cell in cells_with(self.given, "0") if self.grid[cell[0]][cell[1]] != full[cell[0]][cell[1]]]
        wrong = [[r + 1, c + 1, 0] for r, c in filled if self.grid[r][c] != "0"]
        return [*wrong, *([r + 1, c + 1, int(full[r][c])] for r, c in filled)]

    @property
    def content(self) -> str:
        if len(self.grid) == 4:  # so few that many would be the same with lines exchanged
            cells = "".join(self.grid)
            return min(_renamed(exchange(cells)) for exchange in _exchanges())
        rows, columns = BOXES[len(self.grid)]
        looks = turned_and_mirrored(self.grid)
        # The side view of a grid whose boxes are not square has boxes of another shape: it is no such puzzle.
        return min(_renamed("".join(look)) for look in (looks if rows == columns else looks[2:4] + looks[6:8]))

    @property
    def is_solved(self) -> bool:
        return not cells_with(self.grid, "0")


@cache
def _exchanges() -> list[Callable[[str], tuple[str, ...]]]:
    """Each takes the 16 cells of a 4x4 grid, with lines exchanged in a way that leaves the rules as they are.

    All such ways are there, turns and mirrors among them.
    """
    bands = ((0, 1), (2, 3))
    orders = [
        [line for band in order for line in band]
        for both in permutations(bands)
        for order in product(*map(permutations, both))
    ]
    upright = [[4 * r + c for r in rows for c in columns] for rows, columns in product(orders, orders)]
    return [itemgetter(*cells) for look in upright for cells in (look, [4 * (n % 4) + n // 4 for n in look])]


def _renamed(cells: Iterable[str]) -> str:
    """The cells with their digits renamed in the order in which they come."""
    cells = tuple(cells)
    digits = [digit for digit in dict.fromkeys(cells) if digit != "0"]
    names = {"0": "0", **{digit: str(number) for number, digit in enumerate(digits, 1)}}
    return "".join(map(names.__getitem__, cells))


@cache
def _units(side: int) -> dict[Cell, tuple[tuple[str, tuple[Cell, ...]], ...]]:
    """For each cell the other cells of its row, column and box."""
    height, width = BOXES[side]
    board = [(r, c) for r in range(side) for c in range(side)]

    def others(cell: Cell) -> dict[str, list[Cell]]:
        row, column = cell
        return {
            "row": [(r, c) for r, c in board if r == row],
            "column": [(r, c) for r, c in board if c == column],
            "box": [(r, c) for r, c in board if r // height == row // height and c // width == column // width],
        }

    return {
        cell: tuple((name, tuple(o for o in unit if o != cell)) for name, unit in others(cell).items())
        for cell in board
    }


@cache
def _peers(side: int) -> dict[Cell, frozenset[Cell]]:
    """For each cell all cells that may not hold the same digit."""
    return {cell: frozenset(o for _, unit in units for o in unit) for cell, units in _units(side).items()}


def _clash(grid: Grid, cell: Cell, digit: str) -> str | None:
    """The row, column or box of the cell that already holds the digit elsewhere."""
    return next((name for name, unit in _units(len(grid))[cell] if any(grid[r][c] == digit for r, c in unit)), None)


def _completions(grid: Grid, rng: random.Random | None = None) -> Iterator[Grid]:
    """All ways to fill the empty cells, in random order if `rng` is given; it gives up after `MAX_STATES` trials."""
    side = len(grid)
    options = {cell: set("123456789"[:side]) for cell in cells_with(grid, "0")}
    for cell in options:
        options[cell] -= {grid[r][c] for r, c in _peers(side)[cell]}
    trials = iter(range(MAX_STATES))

    def fill(empty: dict[Cell, set[str]], filled: dict[Cell, str]) -> Iterator[Grid]:
        if not empty:
            yield put(grid, filled)
            return
        cell = min(empty, key=lambda cell: len(empty[cell]))
        digits = sorted(empty[cell])
        for digit in rng.sample(digits, len(digits)) if rng else digits:
            if next(trials, None) is None:
                return
            peers = _peers(side)[cell]
            rest = {c: left - {digit} if c in peers else left for c, left in empty.items() if c != cell}
            yield from fill(rest, filled | {cell: digit})

    yield from fill(options, {})


def _full_grid(side: int, rng: random.Random) -> Grid:
    return next(_completions(("0" * side,) * side, rng))
