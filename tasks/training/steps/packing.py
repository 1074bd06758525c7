"""How the rows of a step are laid out as tensors: in micro batches of at most so many tokens.

Packed, rows stand behind each other without padding, and attention keeps them apart (`packed_attention.py`). Where
attention also lets several rows see the same tokens before their own, what they begin with alike stands there once:
no token of a causal model depends on what follows it, so it is the same for all of them, and so is the gradient.
Otherwise rows of similar length stand below each other, padded on the right, where no token of a causal model looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.training.rows.token_rows import TrainRow
from tasks.training.steps.prefixes import by_tokens, shared_length, shared_lengths

_MOST_KEYS = 4
"""Tokens that the rows of a micro batch look at, one row after the other, for each token that may be in it: keys and
values are copied for each row, and are about a twentieth of what a token takes."""


class Layout(Enum):
    """How rows stand in a micro batch."""

    PADDED = "padded"
    PACKED = "packed"
    SHARED = "packed, with what rows begin with alike there once"


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once."""

    input_ids: Tensor
    """(1, tokens) packed, else (rows, longest)."""
    places: Tensor
    """(trained,): where a trained token is predicted, in `input_ids` flattened: one before it."""
    targets: Tensor
    """(trained,): the trained tokens."""
    body: dict[str, Any]
    """Further arguments of the model: positions and, where packed, where rows begin, and what each looks at."""
    num_rows: int

    @property
    def num_tokens(self) -> int:
        """Padding included: what takes memory."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> MicroBatch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            places=self.places.to(device),
            targets=self.targets.to(device),
            body={name: v.to(device) if isinstance(v, Tensor) else v for name, v in self.body.items()},
        )


def split_rows(rows: Sequence[TrainRow], most_tokens: int, layout: Layout) -> list[list[int]]:
    """Which rows go through the model together: at most `most_tokens`, padding included, or one row.

    Returns:
        Micro batches, each as places in `rows`. The first holds the longest row.
    """
    lengths = [len(row.input_ids) for row in rows]
    longest_first = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    if layout is Layout.PADDED:
        return _group(longest_first, lengths, most_tokens)
    shared = shared_lengths(rows) if layout is Layout.SHARED else np.zeros((len(rows), len(rows)), dtype=np.int64)
    return _fill(longest_first, lengths, shared, most_tokens)


def _fill(
    longest_first: Sequence[int], lengths: Sequence[int], shared: NDArray[Any], most_tokens: int
) -> list[list[int]]:
    """Best fit: a row goes where it adds the fewest tokens, to the first of such packs that have room for it."""
    packs: list[list[int]] = []
    tokens: list[int] = []
    keys: list[int] = []
    for at in longest_first:
        added = [lengths[at] - int(shared[at, pack].max()) for pack in packs]
        fitting = [
            i
            for i, more in enumerate(added)
            if tokens[i] + more <= most_tokens and keys[i] + lengths[at] <= _MOST_KEYS * most_tokens
        ]
        if fitting:
            best = min(fitting, key=added.__getitem__)
            packs[best].append(at)
            tokens[best] += added[best]
            keys[best] += lengths[at]
        else:
            packs.append([at])
            tokens.append(lengths[at])
            keys.append(lengths[at])
    return packs


def _group(longest_first: Sequence[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Neighbours in length: the first of a group says how wide it is."""
    groups: list[list[int]] = []
    for at in longest_first:
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= most_tokens:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def lay_out(rows: Sequence[TrainRow], layout: Layout, pad_id: int) -> MicroBatch:
    """Rows as one micro batch."""
    return padded(rows, pad_id) if layout is Layout.PADDED else packed(rows, is_shared=layout is Layout.SHARED)


def packed(rows: Sequence[TrainRow], is_shared: bool = False) -> MicroBatch:
    """Rows behind each other; the position of a token counts from the beginning of its row.

    Args:
        is_shared: what rows begin with alike stands there once. A row's own tokens then look at its whole path: at
            tokens of earlier rows, and behind those at themselves.
    """
    order = by_tokens(rows) if is_shared else range(len(rows))
    paths: list[NDArray[Any]] = [np.empty(0, dtype=np.int64)] * len(rows)
    own, num_tokens, before = [0] * len(rows), 0, None
    for at in order:
        length = len(rows[at].input_ids)
        shared = shared_length(rows[before], rows[at]) if is_shared and before is not None else 0
        earlier = paths[before][:shared] if before is not None else paths[at]
        own[at] = length - shared
        paths[at] = np.concatenate([earlier, np.arange(num_tokens, num_tokens + own[at])])
        num_tokens += own[at]
        before = at
    adding = [at for at in order if own[at]]  # the others are the beginning of another row
    ids = np.concatenate([rows[at].input_ids[-own[at] :] for at in adding])
    positions = np.concatenate([np.arange(len(paths[at]) - own[at], len(paths[at])) for at in adding])
    body = {"position_ids": torch.from_numpy(positions)[None]}
    body |= _boundaries("q", [own[at] for at in adding]) | _boundaries("k", [len(paths[at]) for at in adding])
    if num_tokens < sum(len(paths[at]) for at in adding):
        body["key_places"] = torch.from_numpy(np.concatenate([paths[at] for at in adding]))
    return _micro_batch(rows, torch.from_numpy(ids)[None], paths, body)


def _boundaries(side: str, lengths: Sequence[int]) -> dict[str, Any]:
    begins = torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32))
    return {f"cu_seq_lens_{side}": begins, f"max_length_{side}": max(lengths)}


def padded(rows: Sequence[TrainRow], pad_id: int) -> MicroBatch:
    """Rows below each other. There is no mask: what stands right of a row changes nothing in it."""
    columns = max(len(row.input_ids) for row in rows)
    ids = np.full((len(rows), columns), pad_id, dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row.input_ids)] = row.input_ids
    paths = [np.arange(len(row.input_ids)) + at * columns for at, row in enumerate(rows)]
    return _micro_batch(rows, torch.from_numpy(ids), paths, {})


def _micro_batch(
    rows: Sequence[TrainRow], input_ids: Tensor, paths: Sequence[NDArray[Any]], body: dict[str, Any]
) -> MicroBatch:
    """`paths`: where the tokens of each row stand in `input_ids` flattened."""
    places = [path[row.prompt_length - 1 : -1] for path, row in zip(paths, rows, strict=True)]
    targets = [row.input_ids[row.prompt_length :] for row in rows]
    return MicroBatch(
        input_ids=input_ids,
        places=torch.from_numpy(np.concatenate(places)),
        targets=torch.from_numpy(np.concatenate(targets)),
        body=body,
        num_rows=len(rows),
    )
