"""One thing that a run has made, with all that is told of it and that decides whether it may be deleted."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from tasks.rollout.folder_lock import holder_of

Kind = Literal["journals", "data", "rejected", "checkpoints", "models", "versions", "caches", "logs", "leftovers"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PRUNED = ".pruned-"
"""How the name of what is being deleted begins."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")

LEFT_AFTER_S = 24 * 3600.0
"""What has a temporary name for longer was left by a process that was killed."""


class Extent(NamedTuple):
    """What of a file or folder can be told from outside."""

    disk_bytes: int
    modified: float
    """When something in it was written last, in seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that a run has made."""

    kind: Kind
    what: str
    path: Path
    extent: Extent
    state: str = "whole"
    detail: str = ""
    owed: int | None = 0
    """Episodes that were asked for and are not played yet; None: nobody knows."""
    cost: str = "nothing"
    """What is lost with it."""
    needed: str = ""
    """Why it must stay; empty: it need not."""
    worthless: bool = False
    """Whether nobody can use it, however new it is."""
    series: str = ""
    """Those in the same one come after each other, and the newest of them stay."""
    companions: Sequence[Path] = ()
    """Files that belong to it, and go with it."""
    lock: Path | None = None
    """Who makes it holds this, where that is not a lock in it."""


def extent(path: Path) -> Extent:
    """Of a file or of all files in a folder; links count themselves, and what vanishes meanwhile nothing."""
    total, newest = 0, 0.0
    for part in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else [])]:
        try:
            found = part.lstat()
        except FileNotFoundError:
            continue
        if not part.is_dir() or part.is_symlink():
            total, newest = total + found.st_size, max(newest, found.st_mtime)
        elif part == path:
            newest = max(newest, found.st_mtime)
    return Extent(total, newest)


def who_writes(path: Path) -> str:
    """That somebody writes there, and who; empty if nobody does."""
    for lock in locks_in(path):
        if (holder := holder_of(lock)) is not None:
            return f"running, process {holder}" if holder else "running"
    return ""


def locks_in(path: Path) -> list[Path]:
    """The lock files of a journal or of a training."""
    return sorted({*path.glob("*.lock"), *path.glob("lock")}) if path.is_dir() else []


def leftovers(paths: Iterable[Path]) -> Iterator[Item]:
    """Those of some paths with temporary names that no process works on any more."""
    for path in sorted(paths):
        found = extent(path)
        if path.name.startswith(PRUNED) or time.time() - found.modified > LEFT_AFTER_S:
            yield Item(
                kind="leftovers", what="leftover", path=path, extent=found, state="of a killed run", worthless=True
            )


def temporary(folder: Path) -> Iterator[Path]:
    """What has a temporary name in a folder, as `tasks.rollout.artifact` gives it."""
    yield from (path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name))
    yield from folder.glob(f"{PRUNED}*")


def newest(items: Sequence[Item], count: int) -> set[Path]:
    """The last `count` of each series."""
    series: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (-item.extent.modified, item.path)):
        series[item.kind, item.series].append(item)
    return {item.path for group in series.values() for item in group[:count]}


def shown_time(seconds: float) -> str:
    """As people read it, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
