"""What lies here: episodes, data files, models, cached results; what of it is running or unfinished; its size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text


def main() -> int:
    """0, or 1 where nothing lies here."""
    parser = argparse.ArgumentParser(prog="python -m flows.status", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="where runs were started (here)")
    folder: Path = parser.parse_args().folder

    from tasks.reporting.inventory import Item, data_items, disk_bytes, model_items  # pandas takes a second

    data = sorted(path for path in folder.glob("sft_data_*") if path.is_dir())
    items: Sequence[Item] = [*(item for path in data for item in data_items(path)), *model_items(folder)]
    if not items:
        print(
            f"{folder.absolute()} holds no sft_data_* or sft_model_* folder; wanted where a flow was run.",
            file=sys.stderr,
        )
        return 1
    table = Table(box=None, pad_edge=False)
    for column in ("what", "where", "state", "size", ""):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for item in items:
        where = item.path.relative_to(folder) if item.path.is_relative_to(folder) else item.path
        cells = (item.what, str(where), item.state, decimal(item.disk_bytes), item.detail)
        table.add_row(*map(Text, cells))
    results = _results_folder()
    count = sum(1 for path in results.iterdir() if path.is_file()) if results.is_dir() else 0
    table.add_row("cached results", str(results), f"{count:,} of all folders", decimal(disk_bytes(results)))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def _results_folder() -> Path:
    """Where Prefect keeps the results of tasks."""
    from prefect.settings import get_current_settings

    path = get_current_settings().results.local_storage_path
    if path is None:
        raise ValueError("Prefect has no results.local_storage_path; wanted a folder")
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
