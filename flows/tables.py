"""What the commands print that look at folders: tables of paths as they are seen from there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED = 200
"""Columns where there is no terminal, which would say how many it has."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print texts under the names of their columns; a column `size` stands to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for cells in rows:
        table.add_row(*map(Text, cells))
    Console(width=None if sys.stdout.isatty() else _PIPED).print(table)


def seen_from(folder: Path, path: Path) -> str:
    """The path, from an absolute folder on if it lies in that one."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
