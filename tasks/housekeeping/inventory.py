"""All that lies where runs were started, and what the runs of a user share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tasks.housekeeping.cache_items import cache_folder, cache_items, log_folder, log_items, result_items
from tasks.housekeeping.data_items import data_items
from tasks.housekeeping.item import Item
from tasks.housekeeping.model_items import model_items


def run_items(folder: Path) -> list[Item]:
    """What was made in a folder where runs were started; or in a data folder, if it is one."""
    if (folder / ".episodes").is_dir():
        return list(_behind_no_link(data_items(folder), folder))
    data = sorted(path for path in folder.glob("sft_data_*") if path.is_dir())
    found = [item for path in data for item in data_items(path)]
    return list(_behind_no_link([*found, *model_items(folder)], folder))


def shared_items(results: Path) -> list[Item]:
    """What the runs of this user share. `results`: where Prefect keeps the results of tasks."""
    parts = ((cache_folder(), cache_items), (log_folder(), log_items), (results, result_items))
    return [item for folder, items in parts for item in _behind_no_link(items(folder), folder)]


def _behind_no_link(items: Iterable[Item], root: Path) -> Iterator[Item]:
    """The items; of those that a link leads to, it is said that they must stay: they may be anybody's."""
    for item in items:
        inside = [item.path, *item.path.parents]
        link = next((path for path in inside[: inside.index(root)] if path.is_symlink()), None)
        yield replace(item, needed=item.needed or f"behind the link {link.name}") if link else item
