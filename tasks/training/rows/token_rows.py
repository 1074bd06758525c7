"""The token rows of one pass over the data: their lengths at hand, their tokens read from disk as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tasks.training.rows.split import Indices
from tasks.training.rows.token_data import TokenData


@dataclass(frozen=True)
class TrainRow:
    """The tokens of a row; the loss is on those behind the prompt."""

    input_ids: Indices
    prompt_length: int
    """At least 1."""


class TokenRows:
    """Rows by their place in the pass. A row comes more than once where its file's weight says so."""

    def __init__(self, tokens: TokenData, data: Sequence[Path], picked: Indices) -> None:
        """`picked`: the rows of the pass, as indices into the token rows; `data`: the files that they come from."""
        table = tokens.rows.data
        self._rows = tokens.rows.with_format("numpy", columns=["input_ids", "prompt_length"])
        self._data = data
        self._picked = picked
        self._file = table.column("file")
        self._number = table.column("number")
        self.lengths: Indices = pc.list_value_length(table.column("input_ids")).to_numpy()[picked].astype(np.int64)
        """Tokens of each row."""
        prompts = table.column("prompt_length").to_numpy()[picked]
        self.trained: Indices = self.lengths - np.maximum(prompts, 1)  # nothing stands before the first token
        """Tokens of each row that the loss is on."""

    def __len__(self) -> int:
        return len(self._picked)

    def read(self, places: Sequence[int] | Indices) -> list[TrainRow]:
        """The rows at these places, in this order."""
        found = self._rows[self._picked[np.asarray(places, dtype=np.int64)]]
        pairs = zip(found["input_ids"], found["prompt_length"], strict=True)
        return [TrainRow(np.asarray(ids, dtype=np.int64), max(int(prompt), 1)) for ids, prompt in pairs]

    def where(self, places: Iterable[int]) -> list[str]:
        """file:line of rows; of parquet files file:row."""
        at = [int(self._picked[place]) for place in places]
        return [f"{self._data[self._file[i].as_py()]}:{self._number[i].as_py()}" for i in at]
