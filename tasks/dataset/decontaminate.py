"""Data files without rows of held-out problems: what was collected before its problem came to be held out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from tasks.dataset.reading import read_records
from tasks.dataset.records import Record, write_records
from tasks.rollout.artifact import content_hash


def without_held_out(paths: Sequence[Path], heldout_hashes: Collection[str]) -> tuple[dict[Path, Path], int]:
    """The data file to train on in place of each of the given ones, and how many rows they lack.

    A file without such rows stands for itself. Another one gives way to `decontaminated_<stem>_<hash>.jsonl` beside it,
    which has its other rows, or to nothing if there are none. Called again it finds what it has written.

    Raises:
        DataFileError: a row cannot be trained on, with file:line.
    """

    def is_held_out(record: Record) -> bool:
        return record.metadata.problem_hash in heldout_hashes

    clean: dict[Path, Path] = {}
    lacking = 0
    for path in paths:
        flags = [is_held_out(row.record) for row in read_records([path])]
        lacking += sum(flags)
        if not any(flags):
            clean[path] = path
        elif not all(flags):
            other = path.with_name(f"decontaminated_{path.stem}_{_digest(path, heldout_hashes)}.jsonl")
            if not other.exists():
                write_records(other, (row.record for row in read_records([path]) if not is_held_out(row.record)))
            clean[path] = other
    return clean, lacking


def _digest(path: Path, heldout_hashes: Collection[str]) -> str:
    text = " ".join([content_hash(path), *sorted(heldout_hashes)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]
