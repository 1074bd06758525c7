"""The journal of a collection: every finished episode, one line each, in the shards of a folder.

`<data_dir>/.episodes/<collection key>/` holds
    collection.json     what made the episodes; written first, never changed
    shard-0000.jsonl    one `Episode` a line, appended as they finish
    shard-0001-<id>.jsonl ...    the same by other writers, if there were several; see `shards.py`
    plan-<hash>.jsonl   which of those lines a finished collection consists of; `EpisodesRef` points at it
    writer.lock         held while somebody appends

Whatever kills a writer leaves whole lines and at most one torn one at the end, whose episode is owed again. A shard has
one writer in its life, but for the first one, which is held by the lock: so a writer that was given up for dead, and is
not, disturbs nobody. Its late episodes may be there a second time; of lines with one key, the last shard's stands.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import model_validator

from tasks.rollout.artifact import Ref, publish_file
from tasks.rollout.episode import Episode, EpisodeKey
from tasks.rollout.folder_lock import lock_folder, unlock_folder
from tasks.rollout.plan import Slot, collection_key
from tasks.rollout.shard import (
    Entry,
    JournalFileError,
    ShardFile,
    ShardWriter,
    cut_off_torn_line,
    parse_line,
    read_entries,
    whole_lines,
)

logger = logging.getLogger(__name__)

SHARD = "shard-0000.jsonl"
SHARDS = "shard-*.jsonl"
IDENTITY = "collection.json"


class EpisodesRef(Ref):
    """The episodes of one finished plan. `path` is its list of lines; the lines are in the shards beside it.

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
        folder = self.path.parent
        shards = shard_files(folder)
        if not shards:
            raise ValueError(f"the journal in {folder} is gone")
        present: set[str] = set()
        for shard in shards:
            with shard.open("rb") as file:
                present.update(hashlib.sha256(line).hexdigest() for line in file)
        missing = sum(line.sha256 not in present for line in self._lines())
        if missing:
            raise ValueError(f"{missing} of {self.requested} episodes in {folder} are gone or have changed")
        return self

    def read(self) -> list[Episode]:
        """The plan's episodes, in the plan's order, whatever else the journal holds."""
        planned = {line.key: line.sha256 for line in self._lines()}
        found: dict[EpisodeKey, Episode] = {}
        for shard in shard_files(self.path.parent):
            for _, raw, episode in whole_lines(shard):
                if planned.get(episode.key) == hashlib.sha256(raw).hexdigest():
                    found[episode.key] = episode
        return [found[key] for key in planned]

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


def shard_number(name: str) -> int:
    """The number in the name of a shard, which tells the order in which they were begun."""
    return int(re.split(r"[-.]", name)[1])


def shard_files(folder: Path) -> list[Path]:
    """The shards of a journal's folder, in the order in which they were begun."""
    return sorted(folder.glob(SHARDS), key=lambda path: (shard_number(path.name), path.name))


def journals(data_dir: Path) -> list[Path]:
    """The folders of all journals with at least one line, the one written last first."""
    shards = [path for path in (data_dir / ".episodes").glob(f"*/{SHARDS}") if path.stat().st_size]
    return list(dict.fromkeys(path.parent for path in sorted(shards, key=lambda path: -path.stat().st_mtime)))


def read_episodes(path: Path) -> list[Episode]:
    """All episodes of a journal's folder or of one shard, each once, in the order in which they finished in each shard.

    Safe while somebody appends: a last line that is not yet whole is not seen.

    Raises:
        JournalFileError: there is no such file, or a line in it is not an episode.
    """
    shards = shard_files(path) if path.is_dir() else [path]
    return list({line.episode.key: line.episode for shard in shards for line in whole_lines(shard)}.values())


def find_episodes(folder: Path, keys: Collection[EpisodeKey]) -> Iterator[Episode]:
    """Some episodes of a journal's folder. Lines of other ones are read, but not parsed.

    Raises:
        JournalFileError: one of these lines is not an episode.
    """
    hashes = {key.problem_hash.encode() for key in keys}
    if not hashes:
        return
    seen: set[EpisodeKey] = set()
    for shard in reversed(shard_files(folder)):
        with shard.open("rb") as file:
            for number, raw in enumerate(file, 1):
                began = _BEGINS.match(raw)
                if began and began[1] in hashes and raw.endswith(b"\n"):
                    episode = parse_line(raw, f"{shard}:{number}")
                    if episode.key in keys and episode.key not in seen:
                        seen.add(episode.key)
                        yield episode


_BEGINS = re.compile(rb'\{"problem_hash":"([^"]*)"')
"""How a line begins: with the first field of `Episode`."""


class Journal(ShardWriter):
    """The owner of a journal's folder, from `open` to `close`: knows what all of its shards hold, and writes to one.

    That is the first shard where there is no other, else a new one. `with Journal.open(...) as journal:` does both.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        shards = shard_files(folder)
        self._next_number = max((shard_number(path.name) + 1 for path in shards), default=1)
        self.path = folder / (SHARD if {path.name for path in shards} <= {SHARD} else self.new_shard())
        if self.path.exists():
            cut_off_torn_line(self.path)
        entries: dict[EpisodeKey, Entry] = {}
        for shard in shards:
            entries |= read_entries(shard)
        size = self.path.stat().st_size if self.path.exists() else 0
        super().__init__(ShardFile(self.path, size), entries, lambda: unlock_folder(lock))

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> Self:
        """Become the owner of `folder`. Blocks, and says so, while another process does.

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

    def new_shard(self) -> str:
        """The name of a shard for a writer that begins now. Nobody else has it, whoever else is at work unseen."""
        number, self._next_number = self._next_number, self._next_number + 1
        return f"shard-{number:04d}-{uuid.uuid4().hex[:8]}.jsonl"

    def take_in(self, name: str) -> None:
        """Learn what another writer's shard holds, if it is there."""
        shard = self.folder / name
        if not shard.exists():
            return
        self._next_number = max(self._next_number, shard_number(name) + 1)
        found = read_entries(shard)
        self._entries |= found
        self._keys |= found.keys()

    def publish(self, slots: Sequence[Slot]) -> EpisodesRef:
        """Make the plan's episodes known by their content.

        Raises:
            ValueError: some of them are still owed.
        """
        owed = sum(slot.key not in self._entries for slot in slots)
        if owed:
            raise ValueError(
                f"{owed} of {len(slots)} episodes are still owed in {self.folder}; run the collection again"
            )
        entries = [self._entries[slot.key] for slot in slots]
        keys = json.dumps([slot.key for slot in slots])
        path = self.folder / f"plan-{hashlib.sha256(keys.encode()).hexdigest()[:16]}.jsonl"
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


def _claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write down what makes the episodes of this folder, or see that it is the same as before."""
    path = folder / IDENTITY
    if path.exists():
        check_identity(path.read_text(), identity, str(path))
        return
    if shard_files(folder):
        raise JournalFileError(f"{folder} has episodes but no {IDENTITY}: what made them is unknown. Move it away.")
    with publish_file(path) as tmp:
        tmp.write_text(identity_text(identity))


def identity_text(identity: Mapping[str, Any]) -> str:
    """What stands in collection.json."""
    return json.dumps(identity, indent=2, sort_keys=True) + "\n"


def check_identity(text: str, identity: Mapping[str, Any], where: str) -> None:
    """See that a collection.json, which lies at `where`, is that of a collection.

    Raises:
        JournalFileError: it is not.
    """
    now = json.loads(json.dumps(identity))
    try:
        saved = json.loads(text)
    except ValueError as error:
        raise JournalFileError(f"{where}: not JSON ({error}). Move its folder away to collect anew.") from error
    if saved != now:
        raise JournalFileError(
            f"{where.removesuffix('/' + IDENTITY)} was collected with another config: {differences(saved, now)}. "
            "Resume with the saved one, or use another folder."
        )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two identities, in one line."""
    before, after = dict(_leaves(saved)), dict(_leaves(now))
    return "; ".join(
        f"{name} {before.get(name)!r} (saved) {after.get(name)!r} (now)"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping as dotted names and values."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else key)
    else:
        yield name, value
