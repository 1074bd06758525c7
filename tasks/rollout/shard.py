"""A shard: a file of finished episodes, one line each, and its one writer. The only module that opens such files.

Whatever kills the writer leaves whole lines and at most one torn one at the end, which no reader sees.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self

from pydantic import ValidationError

from tasks.rollout.artifact import sync_folder
from tasks.rollout.episode import Episode, EpisodeError, EpisodeKey

logger = logging.getLogger(__name__)


class JournalFileError(ValueError):
    """What lies in a journal's folder cannot be used. The message names the file and line and says what to do."""


class ExplainedError(OSError):
    """An error of the system in words of ours, whose `errno` stays known to who gets it from another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _explained_error, (type(self), str(self), self.errno)


def _explained_error(kind: type[ExplainedError], message: str, number: int | None) -> ExplainedError:
    error = kind(message)
    error.errno = number
    return error


class JournalWriteError(ExplainedError):
    """Episodes could not be written, e.g. the disk is full. Those that finished before are safe; a rerun resumes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept in memory of a line of the journal."""

    shard: str
    """Where its shard lies."""
    line_number: int
    sha256: str
    success: bool
    error: EpisodeError | None
    num_turns: int
    prompt_tokens: int
    completion_tokens: int


class _Line(NamedTuple):
    number: int
    raw: bytes
    episode: Episode


def whole_lines(shard: Path) -> Iterator[_Line]:
    if not shard.exists():
        raise JournalFileError(f"no journal at {shard}; it is written while episodes are collected")
    with shard.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            yield _Line(number, raw, parse_line(raw, f"{shard}:{number}"))


def parse_line(raw: bytes, where: str) -> Episode:
    try:
        return Episode.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise JournalFileError(
            f"{where}: not an episode: {field + ': ' if field else ''}{first['msg']}. "
            "Remove the line, and its episode is played again."
        ) from error


def _entry(shard: str, number: int, raw: bytes, episode: Episode) -> Entry:
    return Entry(
        shard,
        number,
        hashlib.sha256(raw).hexdigest(),
        episode.success,
        episode.error,
        len(episode.turns),
        sum(turn.prompt_tokens for turn in episode.turns),
        sum(turn.completion_tokens for turn in episode.turns),
    )


class _Append(NamedTuple):
    """An episode that is to be written."""

    line: bytes
    episode: Episode
    written: asyncio.Future[None]


def read_entries(shard: Path) -> dict[EpisodeKey, Entry]:
    """What a shard holds. A torn last line is not seen."""
    entries: dict[EpisodeKey, Entry] = {}
    where = str(shard)
    for number, raw, episode in whole_lines(shard):
        if episode.key in entries:
            first = entries[episode.key].line_number
            raise JournalFileError(f"{shard}:{number}: the episode of line {first} again. Remove one of the two lines.")
        entries[episode.key] = _entry(where, number, raw, episode)
    return entries


def cut_off_torn_line(shard: Path) -> None:
    """Cut off a torn last line, which a killed writer has left. Only for its next writer."""
    with shard.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        size = sum(len(raw) for raw in file if raw.endswith(b"\n"))
        logger.info("%s: cut off a torn last line; its episode is played again", shard)
        file.truncate(size)
        os.fsync(file.fileno())


class Sink(Protocol):
    """Where the lines of one shard go."""

    where: str
    """Where they lie, as in `Entry`."""
    gather_s: float
    """For how long lines are gathered to be written together."""

    def append(self, data: bytes) -> None:
        """Write whole lines; returns once they would survive a power cut.

        Raises:
            OSError: they could not be written. None of them counts, and nothing more is to be written.
        """

    def close(self) -> None:
        """Nothing more comes."""


class ShardFile:
    """A shard in a folder."""

    gather_s = 0.0

    def __init__(self, path: Path, size: int | None = None) -> None:
        """`size`: of its whole lines, if its folder's lock is held. Else it is a new one, and nobody else's: it is made
        when there is something to write.
        """
        self.where = str(path)
        self._path, self._size, self._fd = path, size or 0, -1
        self._is_exclusive = size is None

    def append(self, data: bytes) -> None:
        try:
            if self._fd < 0:
                self._open()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            self._take_back()
            raise
        self._size += len(data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        is_new = not self._path.exists()
        exclusive = os.O_EXCL if self._is_exclusive else 0
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | exclusive, 0o644)
        if is_new:
            for part in self._path.parents[:3]:
                sync_folder(part)

    def _take_back(self) -> None:
        """End the file with a whole line again. Where even that fails, whoever reads it sees no torn line."""
        try:
            if self._fd >= 0:
                os.ftruncate(self._fd, self._size)
        except OSError as second:
            logger.error("%s: could not take a failed write back: %s", self.where, second)


class ShardWriter:
    """The one writer of a shard, until it is closed. Many episodes may be appended at once, and share a sync."""

    def __init__(self, sink: Sink, entries: dict[EpisodeKey, Entry], release: Callable[[], None] | None = None) -> None:
        """`entries`: the finished episodes, which are not appended again. `release` is called when it is closed."""
        self._sink = sink
        self._entries = entries
        self._keys = set(entries)
        self._num_lines = sum(entry.shard == sink.where for entry in entries.values())
        self._release = release
        self._waiting: queue.SimpleQueue[_Append] = queue.SimpleQueue()
        self._commit_is_due = False
        """Whether a commit is to begin, which will take all that waits by then."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._failure: JournalWriteError | None = None
        self._is_open = True

    @property
    def where(self) -> str:
        """What it writes to."""
        return self._sink.where

    @property
    def finished(self) -> Mapping[EpisodeKey, Entry]:
        """The episodes that would survive a power cut."""
        return MappingProxyType(self._entries)

    async def append(self, episode: Episode) -> None:
        """Write an episode; returns once it would survive a power cut. Many may be awaited at once, and share a sync.

        Raises:
            JournalWriteError: it could not be written; nothing more can be until the journal is opened again.
            ValueError: the journal has this episode already.
        """
        if episode.key in self._keys:
            raise ValueError(f"{self.where} has {episode.key} already; an episode is written once")
        self._keys.add(episode.key)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Append(episode.model_dump_json().encode() + b"\n", episode, written))
        if not self._commit_is_due:
            self._commit_is_due = True
            self._writer.submit(self._commit)
        await written

    def close(self) -> None:
        """Write what still waits, and let the next writer in. Safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        if self._failure is None:
            self._writer.submit(self._commit)
        self._writer.shutdown()
        self._sink.close()
        if self._release is not None:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _commit(self) -> None:
        """Write and sync all that waits, and tell those who wait for it. Runs in the writer thread only."""
        time.sleep(self._sink.gather_s)
        self._commit_is_due = False
        batch = [self._waiting.get() for _ in range(self._waiting.qsize())]
        if not batch:
            return
        failure: BaseException | None = None
        try:
            self._write(batch)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
            batch[-1].written.get_loop().call_soon_threadsafe(_tell, batch, failure)

    def _write(self, batch: Sequence[_Append]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._sink.append(b"".join(append.line for append in batch))
        except OSError as error:
            self._failure = self._explained(error)
            raise self._failure from error
        for append in batch:
            self._num_lines += 1
            entry = _entry(self._sink.where, self._num_lines, append.line, append.episode)
            self._entries[append.episode.key] = entry

    def _explained(self, error: OSError) -> JournalWriteError:
        failure = JournalWriteError(
            f"{self.where}: cannot write: {error.strerror or error}. {self._num_lines} episodes are safe in it; "
            "make room, and run the same command again to play the rest."
        )
        failure.errno = error.errno  # tells a full disk, which no retry mends, from a passing fault
        return failure


def _tell(batch: Sequence[_Append], failure: BaseException | None) -> None:
    for append in batch:
        if append.written.done():
            continue  # whoever waited was cancelled
        if failure is None:
            append.written.set_result(None)
        else:
            append.written.set_exception(failure)
