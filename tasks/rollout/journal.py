"""The journal of a collection: every finished episode, one line each. The only module that opens an episodes file.

`<data_dir>/.episodes/<collection key>/` holds
    collection.json     what made the episodes; written first, never changed
    shard-0000.jsonl    one `Episode` a line, appended as they finish
    plan-<hash>.jsonl   which of those lines a finished collection consists of; `EpisodesRef` points at it
    writer.lock         held while somebody appends

Whatever kills a writer leaves whole lines and at most one torn one at the end, whose episode is owed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import queue
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from pydantic import ValidationError, model_validator

from tasks.rollout.artifact import Ref, publish_file, sync_folder
from tasks.rollout.episode import Episode, EpisodeError, EpisodeKey
from tasks.rollout.folder_lock import lock_folder, unlock_folder
from tasks.rollout.plan import Slot, collection_key

logger = logging.getLogger(__name__)

SHARD = "shard-0000.jsonl"
IDENTITY = "collection.json"


class JournalFileError(ValueError):
    """What lies in a journal's folder cannot be used. The message names the file and line and says what to do."""


class JournalWriteError(OSError):
    """Episodes could not be written, e.g. the disk is full. Those that finished before are safe; a rerun resumes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept in memory of a line of the journal."""

    line_number: int
    sha256: str
    success: bool
    error: EpisodeError | None
    num_turns: int
    prompt_tokens: int
    completion_tokens: int


class EpisodesRef(Ref):
    """The episodes of one finished plan. `path` is its list of lines; the lines are in the shard beside it.

    Stays valid while the journal grows; parsing it fails where the journal is gone or one of its lines has changed.
    """

    requested: int
    finished: int
    errored: int
    succeeded: int
    turns: int
    prompt_tokens: int
    completion_tokens: int

    @model_validator(mode="after")
    def _journal_holds_its_lines(self) -> Self:
        shard = self.path.parent / SHARD
        if not shard.exists():
            raise ValueError(f"{shard} is gone")
        with shard.open("rb") as file:
            present = {hashlib.sha256(line).hexdigest() for line in file}
        missing = sum(line.sha256 not in present for line in self._lines())
        if missing:
            raise ValueError(f"{missing} of {self.requested} episodes in {shard} are gone or have changed")
        return self

    def read(self) -> list[Episode]:
        """The plan's episodes, in the plan's order, whatever else the journal holds."""
        by_key = {episode.key: episode for episode in read_episodes(self.path.parent)}
        return [by_key[line.key] for line in self._lines()]

    def _lines(self) -> list[_PlanLine]:
        return [_PlanLine(*json.loads(line)) for line in self.path.read_text().splitlines()]


class _PlanLine(NamedTuple):
    """A line of plan-<hash>.jsonl."""

    problem_hash: str
    rollout_idx: int
    sha256: str

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.problem_hash, self.rollout_idx)


def journal_folder(data_dir: Path, identity: Mapping[str, Any]) -> Path:
    """Where the journal of a collection lies."""
    return data_dir / ".episodes" / collection_key(identity)


def journals(data_dir: Path) -> list[Path]:
    """The folders of all journals with at least one line, the one written last first."""
    shards = [path for path in (data_dir / ".episodes").glob("*/shard-*.jsonl") if path.stat().st_size]
    return list(dict.fromkeys(path.parent for path in sorted(shards, key=lambda path: -path.stat().st_mtime)))


def read_episodes(path: Path) -> list[Episode]:
    """All episodes of a journal's folder or of one shard, in the order in which they finished.

    Safe while somebody appends: a last line that is not yet whole is not seen.

    Raises:
        JournalFileError: there is no such file, or a line in it is not an episode.
    """
    shards = sorted(path.glob("shard-*.jsonl")) if path.is_dir() else [path]
    return [line.episode for shard in shards for line in _whole_lines(shard)]


def find_episodes(folder: Path, keys: Collection[EpisodeKey]) -> Iterator[Episode]:
    """Some episodes of a journal's folder. Lines of other ones are read, but not parsed.

    Raises:
        JournalFileError: one of these lines is not an episode.
    """
    hashes = {key.problem_hash.encode() for key in keys}
    if not hashes:
        return
    for shard in sorted(folder.glob("shard-*.jsonl")):
        with shard.open("rb") as file:
            for number, raw in enumerate(file, 1):
                began = _BEGINS.match(raw)
                if began and began[1] in hashes and raw.endswith(b"\n"):
                    episode = _parse(raw, f"{shard}:{number}")
                    if episode.key in keys:
                        yield episode


_BEGINS = re.compile(rb'\{"problem_hash":"([^"]*)"')
"""How a line begins: with the first field of `Episode`."""


class _Line(NamedTuple):
    number: int
    raw: bytes
    episode: Episode


def _whole_lines(shard: Path) -> Iterator[_Line]:
    if not shard.exists():
        raise JournalFileError(f"no journal at {shard}; it is written while episodes are collected")
    with shard.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            yield _Line(number, raw, _parse(raw, f"{shard}:{number}"))


def _parse(raw: bytes, where: str) -> Episode:
    try:
        return Episode.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise JournalFileError(
            f"{where}: not an episode: {field + ': ' if field else ''}{first['msg']}. "
            "Remove the line, and its episode is played again."
        ) from error


def _entry(number: int, raw: bytes, episode: Episode) -> Entry:
    return Entry(
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


class Journal:
    """The one writer of a journal's folder, from `open` to `close`. `with Journal.open(...) as journal:` does both."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.path = folder / SHARD
        self._lock = lock
        self._entries, self._size = _recover(self.path)
        self._keys = set(self._entries)
        is_new = not self.path.exists()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if is_new:
            for part in (folder, *folder.parents[:2]):
                sync_folder(part)
        self._waiting: queue.SimpleQueue[_Append] = queue.SimpleQueue()
        self._commit_is_due = False
        """Whether a commit is to begin, which will take all that waits by then."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._failure: JournalWriteError | None = None

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> Journal:
        """Become the writer of `folder`. Blocks, and says so, while another process is.

        Raises:
            JournalFileError: the folder belongs to another collection, or a line is damaged.
        """
        lock = lock_folder(folder)
        try:
            _claim(folder, identity)
            return cls(folder, lock)
        except BaseException:
            unlock_folder(lock)
            raise

    @property
    def finished(self) -> Mapping[EpisodeKey, Entry]:
        """The episodes that are on disk."""
        return MappingProxyType(self._entries)

    async def append(self, episode: Episode) -> None:
        """Write an episode; returns once it would survive a power cut. Many may be awaited at once, and share a sync.

        Raises:
            JournalWriteError: it could not be written; nothing more can be until the journal is opened again.
            ValueError: the journal has this episode already.
        """
        if episode.key in self._keys:
            raise ValueError(f"{self.path} has {episode.key} already; an episode is written once")
        self._keys.add(episode.key)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(_Append(episode.model_dump_json().encode() + b"\n", episode, written))
        if not self._commit_is_due:
            self._commit_is_due = True
            self._writer.submit(self._commit)
        await written

    def publish(self, slots: Sequence[Slot]) -> EpisodesRef:
        """Make the plan's episodes known by their content.

        Raises:
            ValueError: some of them are still owed.
        """
        owed = sum(slot.key not in self._entries for slot in slots)
        if owed:
            raise ValueError(f"{owed} of {len(slots)} episodes are still owed in {self.path}; run the collection again")
        entries = [self._entries[slot.key] for slot in slots]
        keys = json.dumps([slot.key for slot in slots])
        path = self.path.with_name(f"plan-{hashlib.sha256(keys.encode()).hexdigest()[:16]}.jsonl")
        lines = (json.dumps([*slot.key, entry.sha256]) for slot, entry in zip(slots, entries, strict=True))
        text = "".join(f"{line}\n" for line in lines)
        with publish_file(path) as tmp:
            tmp.write_text(text)
        return EpisodesRef(
            path=path,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            requested=len(slots),
            finished=len(entries),
            errored=sum(entry.error is not None for entry in entries),
            succeeded=sum(entry.success for entry in entries),
            turns=sum(entry.num_turns for entry in entries),
            prompt_tokens=sum(entry.prompt_tokens for entry in entries),
            completion_tokens=sum(entry.completion_tokens for entry in entries),
        )

    def close(self) -> None:
        """Write what still waits, and let the next writer in. Safe to call twice."""
        if self._fd < 0:
            return
        if self._failure is None:
            self._writer.submit(self._commit)
        self._writer.shutdown()
        os.close(self._fd)
        self._fd = -1
        unlock_folder(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _commit(self) -> None:
        """Write and sync all that waits, and tell those who wait for it. Runs in the writer thread only."""
        self._commit_is_due = False
        batch = [self._waiting.get() for _ in range(self._waiting.qsize())]
        if not batch:
            return
        failure: BaseException | None = None
        try:
            self._take_in(batch)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits any more
            batch[-1].written.get_loop().call_soon_threadsafe(_tell, batch, failure)

    def _take_in(self, batch: Sequence[_Append]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._write(b"".join(append.line for append in batch))
        except OSError as error:
            self._failure = self._undo(error)
            raise self._failure from error
        for append in batch:
            self._entries[append.episode.key] = _entry(len(self._entries) + 1, append.line, append.episode)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        os.fsync(self._fd)
        self._size += len(data)

    def _undo(self, error: OSError) -> JournalWriteError:
        """Take a failed write back, so that the file ends with a whole line. Where even that fails, `open` does it."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as second:
            logger.error("%s: could not take a failed write back: %s", self.path, second)
        failure = JournalWriteError(
            f"{self.path}: cannot write: {error.strerror}. {len(self._entries)} episodes are safe in it; "
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


def _recover(shard: Path) -> tuple[dict[EpisodeKey, Entry], int]:
    """What a shard holds, and the size of its whole lines. A torn last line, left by a killed writer, is cut off."""
    entries: dict[EpisodeKey, Entry] = {}
    size = 0
    if not shard.exists():
        return entries, size
    for number, raw, episode in _whole_lines(shard):
        if episode.key in entries:
            first = entries[episode.key].line_number
            raise JournalFileError(f"{shard}:{number}: the episode of line {first} again. Remove one of the two lines.")
        entries[episode.key] = _entry(number, raw, episode)
        size += len(raw)
    if size < shard.stat().st_size:
        logger.info("%s: cut off a torn last line; its episode is played again", shard)
        with shard.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    return entries, size


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write down what makes the episodes of this folder, or see that it is the same as before."""
    path = folder / IDENTITY
    now = json.loads(json.dumps(identity))
    if not path.exists():
        if (folder / SHARD).exists():
            raise JournalFileError(f"{folder} has episodes but no {IDENTITY}: what made them is unknown. Move it away.")
        with publish_file(path) as tmp:
            tmp.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n")
        return
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise JournalFileError(f"{path}: not JSON ({error}). Move the folder away to collect anew.") from error
    if saved != now:
        before, after = dict(_leaves(saved)), dict(_leaves(now))
        changes = "; ".join(
            f"{name} {before.get(name)!r} (saved) {after.get(name)!r} (now)"
            for name in sorted(before.keys() | after.keys())
            if before.get(name) != after.get(name)
        )
        raise JournalFileError(
            f"{folder} was collected with another config: {changes}. Resume with the saved one, or use another folder."
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping as dotted names and values."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else key)
    else:
        yield name, value
