"""What lies here: episodes, data files, models, caches; what of it is running, owed or promoted; its size."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from flows.tables import print_table, seen_from

if TYPE_CHECKING:
    from tasks.housekeeping.item import Item


def main() -> int:
    """0, or 1 where nothing lies here."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="where runs were started (here)")
    folder: Path = parser.parse_args().folder.absolute()

    from flows.result_storage import results_folder  # what these import takes a second
    from tasks.housekeeping.inventory import run_items, shared_items

    here = run_items(folder)
    if not here:
        print(
            f"{folder} holds no sft_data_* or sft_model_* folder; wanted where a flow was run.",
            file=sys.stderr,
        )
        return 1
    shared = shared_items(results_folder())
    rows = [
        (item.what, seen_from(folder, item.path), item.state, decimal(item.extent.disk_bytes), item.detail)
        for item in here
    ]
    rows += [_together(what, list(group)) for what, group in groupby(shared, key=lambda item: item.what)]
    print_table(("what", "where", "state", "size", ""), rows)
    print(_in_one_line(folder, here, shared))
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
