"""Which rows are decoded together, and how many: by policy, by length, and by the memory that there is.

Rows wait in a line, oldest first. Those that are read together are the oldest and others like it: of the same adapter
and about as long. Each adapter has batches of its own, and all batches take turns, so no policy waits for another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import psutil  # type: ignore[import-untyped]
import torch

from tasks.engines.base import EngineError
from tasks.engines.in_process.decoding import LiveBatch, Model, Reading, Row
from tasks.engines.in_process.kv_cache import BLOCK_COLUMNS, ColumnCache

logger = logging.getLogger(__name__)

_REFILL_SHARE = 8
"""Rows are read when they are at least this fraction (1/n) of the rows at work: each reading has its price."""
_MOST_TURNS_IN_LINE = 16
"""The oldest row waits no longer for others to be read with, if there is room for it."""
_STEPS_PER_TURN = 4
"""Tokens that a batch draws in its turn where adapters have to be switched."""
_READ_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Most tokens that are read in one turn, padding included: rows that are decoding wait for them."""
_LEAST_READ_TOKENS = 128
_MOST_ROWS = {"cpu": 256, "cuda": 4096}
"""More at once are not faster."""
_IDLE_CELLS = {"cpu": 8192, "cuda": 131072}
"""A batch of its own costs about as much as so many columns of padding in each step."""
_MEMORY_SHARE = {"cpu": 0.5, "cuda": 0.85}
"""What keys and values may take of the memory that is free when the first ones are there."""
_FIRST_PATIENCE_TURNS = 256
"""After running out of memory: turns that must go well before a few more rows are tried. Each time, twice as many."""


class Batches:
    """All rows that an engine answers, waiting or being decoded. One thread owns it."""

    def __init__(
        self,
        select: Callable[[str | None], Model],
        stop_ids: frozenset[int],
        device: torch.device,
        most_rows: int,
    ) -> None:
        """`select` gives the model with an adapter, valid until it is called again."""
        self._select = select
        self._stop_ids = stop_ids
        self._device = device
        self._most_rows = self._limit = min(most_rows, _MOST_ROWS[device.type])
        self._read_tokens = _READ_TOKENS[device.type]
        self._line: list[Row] = []
        self._turns_in_line = 0
        self._reading: Reading | None = None
        self._live: list[LiveBatch] = []
        self._memory = _CacheMemory(device)
        self._calm_turns = 0
        self._patience_turns = _FIRST_PATIENCE_TURNS

    @property
    def rows(self) -> list[Row]:
        """All rows that have not finished."""
        return [*self._rows_at_work(), *self._line]

    @property
    def most_rows(self) -> int:
        """Rows that are decoded at once, at most; fewer than was asked for after running out of memory."""
        return self._limit

    @property
    def cache_bytes(self) -> int:
        """Bytes taken for keys and values, on the device."""
        reading = [self._reading.cache] if self._reading is not None else []
        return _taken_bytes([*(batch.cache for batch in self._live), *reading])

    def add(self, rows: Sequence[Row]) -> None:
        """Put rows at the end of the line. One that gets a `finish_reason` from outside is given up."""
        self._line += rows

    def turn(self) -> list[Row]:
        """Do a bounded piece of the work. Returns the rows that have finished.

        Raises:
            EngineError: there is not enough memory for one row.
        """
        finished: list[Row] = []
        try:
            self._advance(finished)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            is_out = True
        else:
            is_out = False
        if is_out:  # here the error has gone, and with it what it held
            finished += [row for batch in self._live for row in batch.take_finished()]
            self._start_again_with_fewer()
        else:
            self._try_more()
        return finished

    def _advance(self, finished: list[Row]) -> None:
        self._line = [row for row in self._line if row.finish_reason is None]
        if self._reading is None:
            self._reading = self._begin_reading()
        if self._reading is not None and self._reading.read(self._select(self._reading.adapter), self._read_tokens):
            self._place(self._reading)
            self._reading = None
        adapters = dict.fromkeys(batch.adapter for batch in self._live)
        for adapter in adapters:
            model = self._select(adapter)
            for batch in self._live:
                if batch.adapter == adapter:
                    self._decode(batch, model, _STEPS_PER_TURN if len(adapters) > 1 else 1)
        for batch in self._live:
            finished += batch.take_finished()
        self._live = [batch for batch in self._live if batch.live_rows]

    def _decode(self, batch: LiveBatch, model: Model, num_steps: int) -> None:
        for _ in range(num_steps):
            if not batch.live_rows:
                return
            if len(self._rows_at_work()) > 1:
                self._memory.check(self.cache_bytes, batch)
            batch.step(model)

    def _rows_at_work(self) -> list[Row]:
        read = self._reading.rows if self._reading is not None else []
        return list(dict.fromkeys([row for batch in self._live for row in batch.live_rows] + read))

    def _begin_reading(self) -> Reading | None:
        num_live = len(self._rows_at_work())
        room = self._limit - num_live
        if not self._line or room <= 0:
            return None
        self._turns_in_line += 1
        if min(len(self._line), room) * _REFILL_SHARE < num_live and self._turns_in_line < _MOST_TURNS_IN_LINE:
            return None
        rows = self._memory.fitting(self._group(room), self.cache_bytes, self._live)
        if not rows:
            return None
        self._turns_in_line = 0
        taken = set(rows)
        self._line = [row for row in self._line if row not in taken]
        return Reading(rows, self._device)

    def _group(self, room: int) -> list[Row]:
        """The oldest row, and those to read with it: few tokens of padding, and no more than are read in one turn."""
        oldest = self._line[0]
        alike = [row for row in self._line if row.adapter == oldest.adapter]
        alike.sort(key=lambda row: abs(row.length - oldest.length))  # stable: as old as can be among those as long
        longest, num_tokens = 0, 0
        group: list[Row] = []
        for row in alike[:room]:
            longest, num_tokens = max(longest, row.length), num_tokens + row.length
            padded = longest * (len(group) + 1)
            if group and (padded > self._read_tokens or padded - num_tokens > max(_LEAST_READ_TOKENS, padded // 4)):
                break
            group.append(row)
        return group

    def _place(self, reading: Reading) -> None:
        """Let rows join the batch where they cause the least padding, or begin one if that is less."""
        least, place = _IDLE_CELLS[self._device.type], None
        for batch in self._live:
            if batch.adapter == reading.adapter and (waste := _padding(batch, reading)) <= least:
                least, place = waste, batch
        if place is not None:
            place.join(reading)
        else:
            self._live.append(LiveBatch(reading, self._stop_ids))

    def _start_again_with_fewer(self) -> None:
        """Put all rows at work back in line, with the tokens that they have, and halve how many there may be."""
        attempted = self._rows_at_work()
        if self._reading is not None and self._read_tokens > _LEAST_READ_TOKENS:
            self._read_tokens //= 2
        elif len(attempted) <= 1:
            longest = max((row.length for row in attempted), default=0)
            raise EngineError(
                f"out of memory with a single reply of {longest} tokens so far, its prompt included; lower "
                "collect.max_tokens, free memory on the device, or use a smaller model"
            )
        if self._patience_turns == _FIRST_PATIENCE_TURNS:
            logger.warning(
                "out of memory with %d replies at once; going on with half as many, and from now on as memory allows",
                len(attempted),
            )
        self._limit = max(1, len(attempted) // 2)
        self._calm_turns, self._patience_turns = 0, 2 * self._patience_turns
        self._line = attempted + self._line
        self._reading = None
        self._live = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _try_more(self) -> None:
        self._calm_turns += 1
        if self._limit < self._most_rows and self._calm_turns >= self._patience_turns:
            self._limit = min(self._most_rows, self._limit + max(1, self._limit // 4))
            self._calm_turns = 0


class _CacheMemory:
    """How much the keys and values of all batches may take. It is known once a first row has been read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._most_bytes: float | None = None

    def fitting(self, rows: Sequence[Row], taken_bytes: int, live: Sequence[LiveBatch]) -> list[Row]:
        """Those of some rows, from the first, for which there is memory; at least one where none is at work."""
        if not live:
            return list(rows)
        if self._most_bytes is None:
            self._most_bytes = _MEMORY_SHARE[self._device.type] * (_free_bytes(self._device) + taken_bytes)
        free = self._most_bytes - taken_bytes
        cell_bytes = max(batch.cache.cell_bytes for batch in live)
        longest = 0
        fitting: list[Row] = []
        for row in rows:
            longest = max(longest, row.length)
            # Once read, and once more in its batch, while one is copied to the other.
            if 2 * (len(fitting) + 1) * (longest + BLOCK_COLUMNS) * cell_bytes > free:
                break
            fitting.append(row)
        return fitting

    def check(self, taken_bytes: int, batch: LiveBatch) -> None:
        """See that the next token of a batch has room, before others are in need of memory.

        Raises:
            torch.OutOfMemoryError: it has not.
        """
        if self._most_bytes is None:
            return
        more = batch.cells_with(0, batch.width) - batch.cache.cells
        if more > 0 and taken_bytes + more * batch.cache.cell_bytes > self._most_bytes:
            raise torch.OutOfMemoryError("keys and values would take more than their share of the memory")


def _padding(batch: LiveBatch, reading: Reading) -> int:
    """Columns of padding in all, if rows that were read join a batch."""
    num_old, num_new = len(batch.live_rows), len(reading.rows)
    columns = max(batch.width, reading.num_columns)
    return (columns - batch.width) * num_old + (columns - reading.num_columns) * num_new


def _taken_bytes(caches: Sequence[ColumnCache]) -> int:
    return sum(cache.cells * cache.cell_bytes for cache in caches)


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def _is_out_of_memory(error: Exception) -> bool:
    """On a GPU it has a class of its own, on a CPU only a text."""
    texts = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)
