"""A batch of replies that grow together; rows may join and leave between any two tokens.

Rows are padded on the left: all of them end in the same column, and that column's logits are every row's next token.
transformers' `generate` cannot do this: there a batch ends with its slowest row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.engines.base import FinishReason, Sampling
from tasks.engines.in_process.kv_cache import BLOCK_COLUMNS, ColumnCache
from tasks.engines.in_process.sampling import RowRules, draw_tokens, token_list

Model = Callable[..., Any]

_DROP_SHARE = 8
"""Finished rows leave when they are at least this fraction (1/n) of the batch."""


@dataclass(eq=False)
class Row:
    """One reply in the making."""

    prompt_ids: list[int]
    sampling: Sampling
    max_tokens: int
    """What the request asked for, or less where the model's context ends before."""
    uniforms: NDArray[Any]
    has_stop: Callable[[Sequence[int]], bool] | None = None
    """Tells whether the tokens so far end in a text that ends the reply, if there are such texts."""
    adapter: str | None = None
    reply_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @property
    def length(self) -> int:
        """Tokens so far, those of the prompt included."""
        return len(self.prompt_ids) + len(self.reply_ids)

    @property
    def next_uniform(self) -> float:
        """The random number for its next token; any, for a finished row that still stands in a batch."""
        return float(self.uniforms[min(len(self.reply_ids), self.max_tokens - 1)])


class Reading:
    """Rows whose tokens so far are being read, some at a time. A row that was given up once has drawn some already."""

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        self.rows = list(rows)
        columns = max(row.length for row in rows)
        padded = [[0] * (columns - row.length) + row.prompt_ids + row.reply_ids for row in rows]
        self._ids = torch.tensor(padded, device=device)
        self.first = torch.tensor([columns - row.length for row in rows], device=device)
        self.cache = ColumnCache(len(rows), columns + BLOCK_COLUMNS)
        self.logits = torch.empty(0)

    @property
    def adapter(self) -> str | None:
        return self.rows[0].adapter

    @property
    def num_columns(self) -> int:
        return self._ids.shape[1]

    def read(self, model: Model, most_tokens: int) -> bool:
        """Read at most so many more tokens, those of padding included. True: all are read, and `logits` are there."""
        begin = self.cache.window.end
        end = begin + max(1, most_tokens // len(self.rows))
        logits = _forward(model, self._ids[:, begin:end], self.first, self.cache, self.num_columns)
        if end < self.num_columns:
            return False
        self.logits = logits
        return True


class LiveBatch:
    """The rows being decoded by one policy, and their cache of keys and values."""

    def __init__(self, reading: Reading, stop_ids: frozenset[int]) -> None:
        """Begin with rows that have been read, and draw their next tokens."""
        self.adapter = reading.adapter
        self.rows = reading.rows
        self.cache = reading.cache
        self._stop_ids = stop_ids
        self._device = reading.first.device
        self._first = reading.first
        """The column in which each row begins, (rows,)."""
        self._last_ids = self._draw(reading.logits, self.rows)
        self._rules: RowRules | None = None
        self.finished = self._note(self.rows, self._last_ids)
        """Rows that have finished since they were last taken."""

    @property
    def live_rows(self) -> list[Row]:
        return [row for row in self.rows if row.finish_reason is None]

    @property
    def width(self) -> int:
        """Columns that each row carries, its padding included."""
        return self.cache.window.width

    def take_finished(self) -> list[Row]:
        """Rows that have finished and were not taken before."""
        taken, self.finished = self.finished, []
        return taken

    def cells_with(self, num_rows: int, num_columns: int) -> int:
        """Room for tokens that the cache will have once so many more rows of so many columns have joined."""
        return self.cache.cells_with(max(len(self.rows), len(self.live_rows) + num_rows), max(num_columns, self.width))

    def join(self, reading: Reading) -> None:
        """Let rows that have been read take the places of finished ones, or new ones, and draw their next tokens."""
        ids = self._draw(reading.logits, reading.rows)
        places = [i for i, row in enumerate(self.rows) if row.finish_reason is not None][: len(reading.rows)]
        places += range(len(self.rows), len(self.rows) + len(reading.rows) - len(places))
        num_rows = max(len(self.rows), places[-1] + 1)
        self._make_room(num_rows, reading.num_columns)
        self.cache.put(places, reading.cache)
        index = torch.tensor(places, device=self._device)
        grown = num_rows - len(self.rows)
        self._first = torch.cat([self._first, self._first.new_zeros(grown)])
        self._first[index] = reading.first + (self.cache.window.end - reading.cache.window.end)
        self._last_ids = torch.cat([self._last_ids, self._last_ids.new_zeros(grown, 1)])
        self._last_ids[index] = ids
        self._rules = None
        for place, row in zip(places, reading.rows, strict=True):
            self.rows[place : place + 1] = [row]
        self.finished += self._note(reading.rows, ids)

    def step(self, model: Model) -> None:
        """Draw the next token of every row. Finished rows that are still here draw one more, which is not kept."""
        self._drop_finished_if_many()
        longest = max(row.length for row in self.live_rows)
        self.cache.window.start = max(self.cache.window.start, self.cache.window.end - longest + 1)
        self._make_room(len(self.rows), self.width)
        logits = _forward(model, self._last_ids, self._first, self.cache, longest)
        if self._rules is None:
            self._rules = RowRules.of([row.sampling for row in self.rows], self._device)
        self._last_ids = draw_tokens(logits, self._rules, [row.next_uniform for row in self.rows])
        self.finished += self._note(self.rows, self._last_ids)

    def _make_room(self, num_rows: int, num_columns: int) -> None:
        if moved := self.cache.make_room(num_rows, num_columns):
            self._first = self._first + moved

    def _drop_finished_if_many(self) -> None:
        """The last rows take the places of finished ones, once that saves more than it costs."""
        num_live = len(self.live_rows)
        if (len(self.rows) - num_live) * _DROP_SHARE < len(self.rows):
            return
        sources = [i for i, row in enumerate(self.rows) if i >= num_live and row.finish_reason is None]
        targets = [i for i, row in enumerate(self.rows) if i < num_live and row.finish_reason is not None]
        if sources:
            self.cache.move(sources, targets)
        order = list(range(num_live))
        for source, target in zip(sources, targets, strict=True):
            order[target] = source
        index = torch.tensor(order, device=self._device)
        self._first, self._last_ids = self._first[index], self._last_ids[index]
        self.rows = [self.rows[i] for i in order]
        self._rules = None

    def _draw(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        rules = RowRules.of([row.sampling for row in rows], self._device)
        return draw_tokens(logits, rules, [row.next_uniform for row in rows])

    def _note(self, rows: Sequence[Row], ids: Tensor) -> list[Row]:
        """Add drawn tokens to their rows, and give those rows that end with them."""
        finished = []
        for row, token in zip(rows, token_list(ids), strict=True):
            if row.finish_reason is not None:
                continue
            row.reply_ids.append(token)
            if token in self._stop_ids or (row.has_stop is not None and row.has_stop(row.reply_ids)):
                row.finish_reason = "stop"
            elif len(row.reply_ids) >= row.max_tokens:
                row.finish_reason = "length"
            if row.finish_reason is not None:
                finished.append(row)
        return finished


def _forward(model: Model, ids: Tensor, first: Tensor, cache: ColumnCache, longest: int) -> Tensor:
    """Logits of each row's next token, (rows, vocabulary); the cache's window grows by the columns of `ids`.

    No row that matters is longer than `longest`; one that has finished may have gone on beyond the model's context.
    """
    window, end = cache.window, cache.window.end + ids.shape[1]
    columns = torch.arange(window.start, end, device=ids.device)
    positions = (columns[-ids.shape[1] :] - first.unsqueeze(1)).clamp_(0, longest - 1)
    output = model(
        input_ids=ids,
        attention_mask=(columns >= first.unsqueeze(1)).long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    window.end = end
    return output.logits[:, -1]  # type: ignore[no-any-return]
