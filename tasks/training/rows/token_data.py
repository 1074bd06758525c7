"""Data files as token rows on disk: read, checked and tokenised once for the same content, in bounded memory.

They lie in the user's cache folder under a key of all that decides them: what the data files hold, the tokenizer with
its template and arguments, and how long a row may be. Never weights, seeds or how it is trained: another learning rate
tokenises nothing again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from tasks.dataset.checks import DistinctRows
from tasks.dataset.reading import Located
from tasks.dataset.records import Record
from tasks.dataset.rows import DataFileError
from tasks.rollout.artifact import content_hash, publish_folder
from tasks.rollout.episode import EpisodeKey
from tasks.training.config import TrainConfig
from tasks.training.rows.shorten import shortened
from tasks.training.rows.split import problem_number
from tasks.training.rows.tokenise import TokenRow, UntrainableRowError, tokenise

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_VERSION = 5
"""Raise it when the same content gives other rows."""
_ROWS_AT_ONCE = 256
_MOST_SAMPLES = 64
_MOST_KEPT = 8
"""Token data sets in the cache; what was used longest ago goes first."""
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")
_TEMPLATES = ("chat_template*", "additional_chat_templates/*")
_ROWS_FILE, _COUNTS_FILE = "rows.arrow", "counts.json"


class NothingToTrainError(ValueError):
    """No row is left to train on."""


class SampledRow(BaseModel):
    """A row that was drawn by lot, and the turn that it comes from, if it was collected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int
    """In the token rows."""
    file: int
    number: int
    """Line or row in that file."""
    agent_name: str
    problem_hash: str | None
    rollout_idx: int | None
    content: str
    """Hash of its messages."""
    is_shortened: bool

    @property
    def episode(self) -> EpisodeKey | None:
        """The episode that it was a turn of."""
        if self.problem_hash is None or self.rollout_idx is None:
            return None
        return EpisodeKey(self.problem_hash, self.rollout_idx)


class RowCounts(BaseModel):
    """What became of the rows of the files, the same for all ways to train on them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    duplicates: int
    dropped_overlong: int
    shortened: int
    """Rows whose prompt lost its oldest messages to fit."""
    earlier_replies: int
    """Messages of the assistant within prompts: there is no loss on them."""
    samples: list[SampledRow]


@dataclass(frozen=True)
class TokenData:
    """Token rows on disk, each distinct row once."""

    rows: Dataset
    """input_ids, prompt_length, file: index of the data file, number: line or row in it, problem: see
    `problem_number`. Memory-mapped."""
    counts: RowCounts


def token_data(
    data: Sequence[Path],
    model_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    template_args: Mapping[str, Any],
    config: TrainConfig,
) -> TokenData:
    """The token rows of data files, from the cache if they are there.

    Args:
        model_folder: where `tokenizer` comes from.

    Raises:
        DataFileError: a row cannot be trained on, with file:line.
        NothingToTrainError: all of them are too long.
    """
    folder = cache_folder() / _key(data, model_folder, template_args, config)
    with _locked(folder):
        if not (folder / _COUNTS_FILE).is_file():
            with publish_folder(folder) as tmp:
                counts = _write_rows(tmp / _ROWS_FILE, data, tokenizer, template_args, config)
                (tmp / _COUNTS_FILE).write_text(counts.model_dump_json())
        os.utime(folder)
        found = _open(folder)
    _forget_old(folder)
    return found


def cache_folder() -> Path:
    """Where token rows are kept: in `XDG_CACHE_HOME`, by default ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"  # relative ones are to be ignored
    return base / "winnow" / "tokens"


def content_digest(record: Record) -> str:
    """A short name for a row's messages."""
    return hashlib.blake2b(record.content.encode(), digest_size=16).hexdigest()


def _key(data: Sequence[Path], model_folder: Path, template_args: Mapping[str, Any], config: TrainConfig) -> str:
    patterns = (*_TOKENIZER_FILES, *_TEMPLATES)
    tokenizer_files = sorted({file for pattern in patterns for file in model_folder.glob(pattern) if file.is_file()})
    identity = {
        "version": _VERSION,
        "data": [content_hash(path) for path in data],
        "tokenizer": [[str(file.relative_to(model_folder)), content_hash(file)] for file in tokenizer_files],
        "template_args": dict(template_args),
        "max_length": config.max_length,
        "on_overlong": config.on_overlong,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def _open(folder: Path) -> TokenData:
    from datasets import Dataset

    rows = Dataset.from_file(str(folder / _ROWS_FILE))
    return TokenData(rows, RowCounts.model_validate_json((folder / _COUNTS_FILE).read_text()))


def _write_rows(
    path: Path,
    data: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    template_args: Mapping[str, Any],
    config: TrainConfig,
) -> RowCounts:
    import pyarrow as pa

    tokens, number = pa.list_(pa.int32()), pa.int32()
    columns = {"input_ids": tokens, "prompt_length": number, "file": number, "number": number, "problem": pa.int64()}
    schema = pa.schema(list(columns.items()))
    reader = _TokenReader(data, tokenizer, template_args, config)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in reader:
            rows = [row for row, _ in batch]
            values = [
                [row.input_ids for row in rows],
                [row.prompt_length for row in rows],
                [at.file for _, at in batch],
                [at.number for _, at in batch],
                [problem_number(at.record) for _, at in batch],
            ]
            writer.write(pa.record_batch([pa.array(v, f.type) for v, f in zip(values, schema, strict=True)], schema))
    return reader.counts()


class _TokenReader:
    """Reads data files as token rows that fit, batch by batch, and counts."""

    def __init__(
        self,
        data: Sequence[Path],
        tokenizer: PreTrainedTokenizerBase,
        template_args: Mapping[str, Any],
        config: TrainConfig,
    ) -> None:
        self._data = data
        self._distinct = DistinctRows(data)
        self._tokenizer = tokenizer
        self._template_args = template_args
        self._config = config
        self._kept = self._dropped = self._shortened = self._earlier_replies = self._shortest = 0
        self._samples: list[SampledRow] = []
        self._lots = random.Random(0)

    def __iter__(self) -> Iterator[list[tuple[TokenRow, Located]]]:
        located = iter(self._distinct)
        while chunk := list(islice(located, _ROWS_AT_ONCE)):
            tokenised = tokenise([at.record for at in chunk], self._tokenizer, self._template_args)
            fitting = [self._fit(row, at) for row, at in zip(tokenised, chunk, strict=True)]
            if batch := [(row, at) for row, at in zip(fitting, chunk, strict=True) if row is not None]:
                yield batch
        if not self._kept:
            raise NothingToTrainError(
                f"nothing to train on: all {self._dropped} rows are longer than "
                f"train.max_length={self._config.max_length}; the shortest has {self._shortest} tokens"
            )

    def counts(self) -> RowCounts:
        return RowCounts(
            duplicates=self._distinct.duplicates,
            dropped_overlong=self._dropped,
            shortened=self._shortened,
            earlier_replies=self._earlier_replies,
            samples=sorted(self._samples, key=lambda sample: sample.index),
        )

    def _fit(self, row: TokenRow | UntrainableRowError, at: Located) -> TokenRow | None:
        """The row as it is trained on; None: it is left out."""
        row = self._raised(row, at)
        record, length = at.record, len(row.input_ids)
        while len(row.input_ids) > self._config.max_length and self._config.on_overlong == "truncate":
            if (shorter := shortened(record)) is None:
                break
            record = shorter
            row = self._raised(tokenise([record], self._tokenizer, self._template_args)[0], at)
        if len(row.input_ids) <= self._config.max_length:
            self._keep(record, at)
            return row
        if self._config.on_overlong == "error":
            raise DataFileError(
                f"{self._where(at)}: {length:,} tokens; wanted at most train.max_length={self._config.max_length:,}; "
                "raise it, shorten the row, or pass --train.on_overlong drop"
            )
        self._dropped += 1
        self._shortest = min(self._shortest or length, length)
        return None

    def _raised(self, row: TokenRow | UntrainableRowError, at: Located) -> TokenRow:
        if isinstance(row, UntrainableRowError):
            raise DataFileError(f"{self._where(at)}: {row}.")
        return row

    def _where(self, at: Located) -> str:
        return f"{self._data[at.file]}:{at.number}"

    def _keep(self, record: Record, at: Located) -> None:
        self._shortened += record is not at.record
        self._earlier_replies += sum(m["role"] == "assistant" for m in record.messages[:-1])
        place = self._lots.randrange(self._kept + 1)  # so that each row has the same chance to be in the sample
        if self._kept < _MOST_SAMPLES:
            self._samples.append(self._sample(record, at))
        elif place < _MOST_SAMPLES:
            self._samples[place] = self._sample(record, at)
        self._kept += 1

    def _sample(self, record: Record, at: Located) -> SampledRow:
        metadata = at.record.metadata
        return SampledRow(
            index=self._kept,
            file=at.file,
            number=at.number,
            agent_name=metadata.agent_name,
            problem_hash=metadata.problem_hash,
            rollout_idx=metadata.rollout_idx,
            content=content_digest(at.record),
            is_shortened=record is not at.record,
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two runs on the same data tokenise it once."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_old(used: Path) -> None:
    """Whoever still reads what is removed goes on reading it: its files are open."""
    kept = [p for p in used.parent.iterdir() if p.is_dir() and not p.name.startswith(".") and p != used]
    kept.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[_MOST_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
        old.with_name(f"{old.name}.lock").unlink(missing_ok=True)
