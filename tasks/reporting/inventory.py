"""What lies in the folders of runs, whether it is finished, and the disk that it takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.dataset.files import all_data_files
from tasks.reporting.tally import STATES, state
from tasks.rollout.folder_lock import holder_of
from tasks.rollout.journal import IDENTITY, journals, read_episodes


@dataclass(frozen=True)
class Item:
    """Something that a run has made."""

    what: str
    path: Path
    state: str
    disk_bytes: int
    detail: str = ""


def data_items(folder: Path) -> Iterator[Item]:
    """The journals of a data folder, the newest first, then its data files."""
    for path in journals(folder):
        yield _journal_item(path)
    for path in reversed(all_data_files(folder)):
        with path.open("rb") as file:
            rows = sum(1 for _ in file)
        yield Item("data file", path, "whole", path.stat().st_size, f"{rows:,} rows")


def model_items(folder: Path) -> Iterator[Item]:
    """Model folders, those promoted in rounds, and what interrupted trainings left to go on from."""
    for path in sorted(folder.glob("sft_model_*")):
        if path.name.endswith("-rounds"):
            for part in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")):
                yield Item("model folder", part, "promoted" if part.name == "promoted" else "whole", disk_bytes(part))
        elif path.is_dir():
            yield Item("model folder", path, "whole", disk_bytes(path))
    for path in sorted(folder.glob(".sft_model_*.work-*")):
        yield Item("training", path, _progress(path), disk_bytes(path), "the same command resumes it")


def disk_bytes(path: Path) -> int:
    """Bytes of a file or of all files in a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for part in [path] if path.is_file() else path.rglob("*"):
        try:
            total += part.lstat().st_size if part.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _journal_item(path: Path) -> Item:
    size = disk_bytes(path)
    try:
        identity: dict[str, Any] = json.loads((path / IDENTITY).read_text(encoding="utf-8"))
        counts = Counter(map(state, read_episodes(path)))
    except (OSError, ValueError) as error:
        return Item("episodes", path, "damaged", size, str(error))
    played = ", ".join(f"{counts[name]:,} {name}" for name in STATES if counts[name])
    by = "trained adapter" if identity.get("adapters") else "bare model"
    batch = f", batch {identity['batch']}" if identity.get("batch") else ""
    return Item("episodes", path, _progress(path), size, f"{counts.total():,} of the {by}{batch}: {played}")


def _progress(path: Path) -> str:
    """A journal is finished once a plan was published in it; a training's work folder is gone once it is."""
    for name in ("writer.lock", "lock"):  # of a journal, and of a training
        if (holder := holder_of(path / name)) is not None:
            return f"running, process {holder}" if holder else "running"
    return "whole" if any(path.glob("plan-*.jsonl")) else "unfinished, resumed by the same command"
