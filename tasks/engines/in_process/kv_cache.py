"""Keys and values of rows that grow together, in memory that is taken in blocks.

transformers' own cache copies all that it holds for each new token, and a row that joins would copy it once more. Here
a token is written in place, and a row that joins takes the place of one that has left.

All rows end in the same column. The columns in use are a window; columns left of it are nobody's any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK_COLUMNS = 64
"""Columns taken beyond those that are needed: the window is moved or copied once in so many tokens."""
_BLOCK_ROWS = 8
"""Where more rows are needed, room is taken for a multiple of so many."""


@dataclass
class _Window:
    """What all layers have in common. Columns from `start` to `end` are in use."""

    rows: int
    columns: int
    start: int = 0
    end: int = 0

    @property
    def width(self) -> int:
        return self.end - self.start


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys and values, each (rows, heads, columns, head size)."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, window: _Window) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (_empty(states, self.window) for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns behind the window, and give all that a query may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, _, new_columns, _ = key_states.shape
        start, middle, end = self.window.start, self.window.end, self.window.end + new_columns
        self.keys[:rows, :, middle:end] = key_states
        self.values[:rows, :, middle:end] = value_states
        return self.keys[:rows, :, start:end], self.values[:rows, :, start:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.window.width + query_length, 0

    def get_seq_length(self) -> int:
        return self.window.width

    def get_max_length(self) -> int:
        return -1


class ColumnCache(Cache):
    """A transformers cache with room for `rows` rows and `columns` columns, which can be given more of both."""

    def __init__(self, rows: int, columns: int) -> None:
        self.window = _Window(rows, columns)
        super().__init__(layer_class_to_replicate=cast(Any, partial(_Layer, self.window)))

    @property
    def cells(self) -> int:
        """Rows times columns that there is room for."""
        return self.window.rows * self.window.columns

    @property
    def cell_bytes(self) -> int:
        """Bytes of one row's column in all layers; 0 before the first token."""
        return sum(
            side.element_size() * side.shape[1] * side.shape[3] for layer in self.layers for side in _sides(layer)
        )

    def cells_with(self, rows: int, left: int) -> int:
        """What `cells` would be after `make_room`."""
        new = self._window_with(rows, left)
        return new.rows * new.columns

    def make_room(self, rows: int, left: int) -> int:
        """See that there is room for so many rows, for `left` columns up to the window's end and one behind it.

        Returns how far the window has moved, in columns to the right.
        """
        window, new = self.window, self._window_with(rows, left)
        if new is window:
            return 0
        kept = min(rows, window.rows)
        for layer in self.layers:
            for name, side in zip(("keys", "values"), _sides(layer), strict=True):
                room = _empty(side, new)
                room[:kept, :, new.start : new.end] = side[:kept, :, window.start : window.end]
                setattr(layer, name, room)
        moved = new.end - window.end
        window.rows, window.columns, window.start, window.end = new.rows, new.columns, new.start, new.end
        return moved

    def _window_with(self, rows: int, left: int) -> _Window:
        window = self.window
        if rows <= window.rows and left <= window.end < window.columns:
            return window
        is_fitting = window.rows // 2 < rows <= window.rows
        end = max(left, window.width)
        return _Window(
            rows=window.rows if is_fitting else -(-rows // _BLOCK_ROWS) * _BLOCK_ROWS,
            columns=end + BLOCK_COLUMNS,
            start=end - window.width,
            end=end,
        )

    def put(self, rows: Sequence[int], other: ColumnCache) -> None:
        """Copy the rows of another cache into these, so that they end where the window ends."""
        window, width = self.window, other.window.width
        window.start = min(window.start, window.end - width)
        index = torch.tensor(rows, device=_sides(self.layers[0])[0].device)
        for mine, its in zip(self.layers, other.layers, strict=True):
            for room, side in zip(_sides(mine), _sides(its), strict=True):
                room[index, :, window.end - width : window.end] = side[:, :, other.window.start : other.window.end]

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy rows to the places of others."""
        start, end = self.window.start, self.window.end
        device = _sides(self.layers[0])[0].device
        source, target = torch.tensor(sources, device=device), torch.tensor(targets, device=device)
        for layer in self.layers:
            for side in _sides(layer):
                side[target, :, start:end] = side[source, :, start:end]


def _sides(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.keys, layer.values


def _empty(like: Tensor, window: _Window) -> Tensor:
    """Zeros, because what stands in a masked column is multiplied by 0 and must be a number."""
    return like.new_zeros(window.rows, like.shape[1], window.columns, like.shape[3])
