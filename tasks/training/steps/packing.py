"""How the rows of a step are laid out as tensors: in micro batches of at most so many tokens.

Packed, rows stand behind each other without padding, and attention keeps them apart (`packed_attention.py`). Otherwise
rows of similar length stand below each other, padded on the right, where no token of a causal model looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.training.rows.token_rows import TrainRow


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
    """Further arguments of the model: positions and, where packed, where rows begin."""
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


def split_rows(lengths: Sequence[int], most_tokens: int, is_packed: bool) -> list[list[int]]:
    """Which rows go through the model together: at most `most_tokens`, padding included, or one row.

    Returns:
        Micro batches, each as places in `lengths`. The first holds the longest row.
    """
    longest_first = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    return (_fill if is_packed else _group)(longest_first, lengths, most_tokens)


def _fill(longest_first: Sequence[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """First fit: a row goes where there is room for it."""
    packs: list[list[int]] = []
    room: list[int] = []
    for at in longest_first:
        pack = next((i for i, left in enumerate(room) if left >= lengths[at]), None)
        if pack is None:
            packs.append([at])
            room.append(most_tokens - lengths[at])
        else:
            packs[pack].append(at)
            room[pack] -= lengths[at]
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


def packed(rows: Sequence[TrainRow]) -> MicroBatch:
    """Rows behind each other; the position of a token counts from the beginning of its row."""
    lengths = [len(row.input_ids) for row in rows]
    begins = np.cumsum([0, *lengths])
    ids = np.concatenate([row.input_ids for row in rows])
    boundaries = torch.from_numpy(begins.astype(np.int32))
    body = {
        "position_ids": torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }
    return _micro_batch(rows, torch.from_numpy(ids)[None], begins[:-1], body)


def padded(rows: Sequence[TrainRow], pad_id: int) -> MicroBatch:
    """Rows below each other. There is no mask: what stands right of a row changes nothing in it."""
    columns = max(len(row.input_ids) for row in rows)
    ids = np.full((len(rows), columns), pad_id, dtype=np.int64)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row.input_ids)] = row.input_ids
    return _micro_batch(rows, torch.from_numpy(ids), np.arange(len(rows)) * columns, {})


def _micro_batch(rows: Sequence[TrainRow], input_ids: Tensor, begins: NDArray[Any], body: dict[str, Any]) -> MicroBatch:
    places = [
        np.arange(begin + row.prompt_length - 1, begin + len(row.input_ids) - 1)
        for begin, row in zip(begins, rows, strict=True)
    ]
    targets = [row.input_ids[row.prompt_length :] for row in rows]
    return MicroBatch(
        input_ids=input_ids,
        places=torch.from_numpy(np.concatenate(places)),
        targets=torch.from_numpy(np.concatenate(targets)),
        body=body,
        num_rows=len(rows),
    )
