"""Which of what lies there may go, and its going: whatever kills it, nothing is left that is half there.

A folder first gets a name that says so, with its locks held, and is then removed; of a data file and what belongs to it
the data file goes first. What a kill leaves of that is a leftover, which goes with the next pruning.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from envs.retrieval.responses import forget_all
from tasks.housekeeping.cache_items import RESPONSES
from tasks.housekeeping.item import PRUNED, Item, Kind, extent, locks_in, newest
from tasks.housekeeping.model_items import is_promoted
from tasks.promotion.promoted import VERSIONS

PRUNABLE: tuple[Kind, ...] = ("journals", "data", "rejected", "checkpoints", "versions", "caches", "logs", "leftovers")
ALWAYS_KEPT: tuple[Kind, ...] = ("journals", "data", "rejected")
"""Of these the newest of each series stays, unless it is named."""


class InUse(Exception):
    """Somebody works with it."""


def prunable(
    items: Sequence[Item], kinds: Collection[Kind], older_than_s: float, keep: int, named: Collection[Path] = ()
) -> list[Item]:
    """What may go.

    Args:
        kinds: what is looked at.
        older_than_s: what was written later than this many seconds ago stays, unless nobody can use it.
        keep: so many of the newest of each series stay; of `ALWAYS_KEPT` at least one.
        named: if there are any, these alone, however new they are.
    """
    if named:
        return [item for item in items if item.path in named and not item.needed and item.kind in PRUNABLE]
    last = newest(items, keep)
    kept = {kind: last | newest([i for i in items if i.kind == kind], max(keep, 1)) for kind in ALWAYS_KEPT}
    before = time.time() - older_than_s
    return [
        item
        for item in items
        if item.kind in kinds
        and not item.needed
        and (item.worthless or (item.extent.modified < before and item.path not in kept.get(item.kind, last)))
    ]


def remove(item: Item) -> int:
    """Delete it, and say how many bytes that has freed.

    Raises:
        InUse: somebody works with it.
        OSError: it cannot be deleted.
    """
    with _locked(item):
        if item.path.is_symlink():
            raise InUse("it is a link now")
        if item.path.parent.name == VERSIONS and is_promoted(item.path):
            raise InUse("it is promoted by now")
        freed = item.extent.disk_bytes
        if item.path.name == RESPONSES:
            return _emptied(item)
        if extent(item.path).modified > item.extent.modified:
            raise InUse("it was written meanwhile")
        if item.path.is_dir():
            gone = _aside(item)
            item.path.rename(gone)
            shutil.rmtree(gone)
        else:
            item.path.unlink()
        for companion in item.companions:
            freed += companion.lstat().st_size
            companion.unlink()
    return freed


def _emptied(item: Item) -> int:
    try:
        forget_all(item.path)
    except sqlite3.Error as error:
        raise InUse(str(error)) from None
    return item.extent.disk_bytes - item.path.lstat().st_size


def _aside(item: Item) -> Path:
    """A name on the same disk that nobody takes for what it was: not in a folder that is searched for such things."""
    parent = item.path.parent
    room = parent.parent if item.kind == "journals" or parent.name == VERSIONS else parent
    return room / f"{PRUNED}{uuid.uuid4().hex[:8]}"


@contextmanager
def _locked(item: Item) -> Iterator[None]:
    """Hold all locks of an item: who waits for one of them sees that the folder is gone, and makes another."""
    with ExitStack() as held:
        for path in [*locks_in(item.path), *([item.lock] if item.lock else [])]:
            try:
                lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse("somebody writes there") from None
        yield
