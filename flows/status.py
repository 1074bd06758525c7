"""What lies here: episodes, data files, models, caches; what of it is running, owed or promoted; its size."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tasks.housekeeping.item import Item


def main() -> int:
    """0, or 1 where nothing lies here."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="where runs were started (here)")
    folder: Path = parser.parse_args().folder

    from flows.result_storage import results_folder  # what these import takes a second
    from tasks.housekeeping.inventory import run_items, shared_items

    here = run_items(folder)
    if not here:
        print(
            f"{folder.absolute()} holds no sft_data_* or sft_model_* folder; wanted where a flow was run.",
            file=sys.stderr,
        )
        return 1
    shared = shared_items(results_folder())
    table = Table(box=None, pad_edge=False)
    for column in ("what", "where", "state", "size", ""):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for item in here:
        where = item.path.relative_to(folder) if item.path.is_relative_to(folder) else item.path
        cells = (item.what, str(where), item.state, decimal(item.extent.disk_bytes), item.detail)
        table.add_row(*map(Text, cells))
    for what, group in groupby(shared, key=lambda item: item.what):
        table.add_row(*map(Text, _together(what, list(group))))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    console.print(Text(_in_one_line(folder, here, shared)))
    return 0


def _together(what: str, items: Sequence[Item]) -> tuple[str, str, str, str, str]:
    """One row for all of a kind that the user's runs share."""
    useless = sum(item.worthless for item in items)
    state = f"{len(items):,} of all folders" + (f", {useless:,} of no use" if useless else "")
    size = decimal(sum(item.extent.disk_bytes for item in items))
    return what, str(items[0].path.parent), state, size, ""


def _in_one_line(folder: Path, here: Sequence[Item], shared: Sequence[Item]) -> str:
    running = sum(item.state.startswith("running") for item in here)
    owed = sum(item.owed or 0 for item in here)
    unknown = sum(item.owed is None for item in here)
    sizes = [decimal(sum(item.extent.disk_bytes for item in items)) for items in (here, shared)]
    free = decimal(shutil.disk_usage(folder).free)
    return (
        f"{running} running; {owed:,} episodes owed{f', and unknown in {unknown} journals' if unknown else ''}; "
        f"{sizes[0]} here, {sizes[1]} shared by all folders, {free} free"
    )


if __name__ == "__main__":
    sys.exit(main())
