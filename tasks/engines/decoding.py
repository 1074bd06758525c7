"""A batch of replies that grow together; rows may join and leave between any two tokens.

Rows are padded on the left: all of them end in the same column, and that column's logits are every row's next token.
transformers' `generate` cannot do this: there a batch ends with its slowest row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from tasks.engines.base import FinishReason, Sampling
from tasks.engines.sampling import RowRules, draw_tokens

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
    reply_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class LiveBatch:
    """The rows being decoded by one policy, and their cache of keys and values."""

    def __init__(self, model: Callable[..., Any], stop_ids: frozenset[int], device: torch.device) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._stop_ids = stop_ids
        self._device = device
        self._mask = torch.empty(0, 0, dtype=torch.long, device=device)  # (rows, columns), 0 where padded
        self._last_ids = torch.empty(0, 1, dtype=torch.long, device=device)
        self._cache = DynamicCache()
        self._rules: RowRules | None = None

    def admit(self, rows: Sequence[Row]) -> None:
        """Read the rows' prompts, draw their first tokens, and let them join."""
        columns = max(len(row.prompt_ids) for row in rows)
        ids = torch.tensor([[0] * (columns - len(r.prompt_ids)) + r.prompt_ids for r in rows], device=self._device)
        lengths = torch.tensor([[len(r.prompt_ids)] for r in rows], device=self._device)
        mask = (torch.arange(columns, device=self._device) >= columns - lengths).long()
        cache = DynamicCache()
        logits = self._forward(ids, mask, cache)
        last_ids = draw_tokens(logits, RowRules.of([r.sampling for r in rows], self._device), _uniforms(rows))
        self._note(rows, last_ids)
        self._join(rows, mask, cache, last_ids)

    def step(self) -> None:
        """Draw the next token of every row. Rows that had finished draw one more, which is not kept."""
        if self._rules is None:
            self._rules = RowRules.of([row.sampling for row in self.rows], self._device)
        self._mask = pad(self._mask, (0, 1), value=1)
        logits = self._forward(self._last_ids, self._mask, self._cache)
        self._last_ids = draw_tokens(logits, self._rules, _uniforms(self.rows))
        self._note(self.rows, self._last_ids)

    def drop_finished(self) -> None:
        """Take finished rows out, and the columns that no row needs any more."""
        kept = [i for i, row in enumerate(self.rows) if row.finish_reason is None]
        if len(kept) == len(self.rows):
            return
        self._rules = None
        self.rows = [self.rows[i] for i in kept]
        index = torch.tensor(kept, dtype=torch.long, device=self._device)
        mask = self._mask[index]
        unused = int((mask.sum(0) > 0).int().argmax()) if kept else mask.shape[1]
        self._mask = mask[:, unused:]
        self._last_ids = self._last_ids[index]
        self._cache = _cache_of([(k[index, :, unused:], v[index, :, unused:]) for k, v in _layers(self._cache)])

    def drop_finished_if_many(self) -> None:
        """The same, once it saves more than the copy of the cache costs."""
        finished = sum(row.finish_reason is not None for row in self.rows)
        if finished * _DROP_SHARE >= len(self.rows):
            self.drop_finished()

    def _forward(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Logits of each row's next token, (rows, vocabulary); the cache grows by the columns of `ids`."""
        positions = (mask.cumsum(-1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def _note(self, rows: Sequence[Row], ids: Tensor) -> None:
        for row, token in zip(rows, ids.squeeze(1).tolist(), strict=True):
            if row.finish_reason is not None:
                continue
            row.reply_ids.append(token)
            if token in self._stop_ids or (row.has_stop is not None and row.has_stop(row.reply_ids)):
                row.finish_reason = "stop"
            elif len(row.reply_ids) >= row.max_tokens:
                row.finish_reason = "length"

    def _join(self, rows: Sequence[Row], mask: Tensor, cache: DynamicCache, last_ids: Tensor) -> None:
        self._rules = None
        if not self.rows:
            self.rows, self._mask, self._cache, self._last_ids = list(rows), mask, cache, last_ids
            return
        columns = max(self._mask.shape[1], mask.shape[1])
        old, new = columns - self._mask.shape[1], columns - mask.shape[1]
        self.rows += rows
        self._mask = torch.cat([pad(self._mask, (old, 0)), pad(mask, (new, 0))])
        self._last_ids = torch.cat([self._last_ids, last_ids])
        self._cache = _cache_of(
            [
                (
                    torch.cat([pad(old_k, (0, 0, old, 0)), pad(new_k, (0, 0, new, 0))]),
                    torch.cat([pad(old_v, (0, 0, old, 0)), pad(new_v, (0, 0, new, 0))]),
                )
                for (old_k, old_v), (new_k, new_v) in zip(_layers(self._cache), _layers(cache), strict=True)
            ]
        )


def _uniforms(rows: Sequence[Row]) -> list[float]:
    """Each row's random number for its next token; for a finished row that still stands in the batch, any."""
    return [float(r.uniforms[min(len(r.reply_ids), r.max_tokens - 1)]) for r in rows]


def _layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values per layer, each (rows, heads, columns, head size)."""
    return [(layer.keys, layer.values) for layer in cast(list[Any], cache.layers)]


def _cache_of(layers: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    return DynamicCache(layers)
