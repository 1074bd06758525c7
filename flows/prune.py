"""Delete what runs have left and nobody needs: shows it first, with what that costs, and asks.

Never deleted: what is promoted, model folders, what somebody is writing, and the newest journals and data files unless
--only names them. Nothing is reached through a link.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from flows.tables import print_table, seen_from

if TYPE_CHECKING:
    from tasks.housekeeping.item import Item

ONE_ROW = ("caches", "logs", "leftovers")
"""Kinds of which there are many: those that are alike stand in one row."""


def main() -> int:
    """0; 1 where something could not be deleted; 2 where the command is wrong, or nobody can be asked."""
    from flows.result_storage import results_folder  # what these import takes a second
    from tasks.housekeeping.inventory import run_items, shared_items
    from tasks.housekeeping.prune import prunable

    line = _parser().parse_args()
    folder: Path = line.folder.absolute()
    if not folder.is_dir():
        print(f"{folder} is not a folder; wanted one where flows were run", file=sys.stderr)
        return 2
    named = {path.absolute() for path in line.only}
    items = [*run_items(folder), *shared_items(results_folder())]
    if lost := [path for path in named if path not in {item.path for item in items}]:
        print(f"--only: {lost[0]} is not among what `python -m flows.status` shows", file=sys.stderr)
        return 2
    for item in items:
        if item.path in named and item.needed:
            print(f"{seen_from(folder, item.path)} stays: {item.needed}", file=sys.stderr)
    chosen = prunable(items, line.what, line.older_than, line.keep, named)
    if not chosen:
        print("nothing to delete")
        return 0
    print_table(("what", "where", "last written", "size", "what is lost"), _rows(chosen, folder))
    if not line.yes:
        if not sys.stdin.isatty():
            print("nothing is deleted: there is no terminal to ask at; --yes deletes without asking", file=sys.stderr)
            return 2
        if input(f"Delete {_told(chosen)}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return 0
    return _delete(chosen, folder)


def _parser() -> argparse.ArgumentParser:
    from tasks.housekeeping.prune import PRUNABLE

    parser = argparse.ArgumentParser(
        prog="python -m flows.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [kind for kind in PRUNABLE if kind != "data"]

    def kinds(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [kind for kind in found if kind not in PRUNABLE]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PRUNABLE)}")
        return found

    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="where runs were started (here)")
    parser.add_argument(
        "--what", type=kinds, default=usual, metavar="KINDS", help=f"with commas between; default {','.join(usual)}"
    )
    parser.add_argument("--older-than", type=_seconds, default="30d", metavar="AGE", help="30d, 12h or 2w; default 30d")
    parser.add_argument(
        "--keep", type=int, default=0, metavar="N", help="the newest N of each sort stay, whatever their age"
    )
    parser.add_argument(
        "--only", type=Path, nargs="+", default=[], metavar="PATH", help="these alone, whatever their age"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask, as cron needs it")
    return parser


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d+)([hdw])", age)
    if not found:
        raise argparse.ArgumentTypeError(f"found {age!r}; wanted a number with h, d or w, such as 30d")
    return int(found[1]) * {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}[found[2]]


def _rows(items: Sequence[Item], folder: Path) -> Iterator[tuple[str, str, str, str, str]]:
    from tasks.housekeeping.item import shown_time

    rows: dict[object, list[Item]] = defaultdict(list)
    for item in items:
        rows[(item.what, item.path.parent, item.cost) if item.kind in ONE_ROW else item.path].append(item)
    for alike in rows.values():
        first, several = alike[0], len(alike) > 1
        where = f"{len(alike):,} in {first.path.parent}" if several else seen_from(folder, first.path)
        last = shown_time(max(item.extent.modified for item in alike))
        yield first.what, where, last, decimal(_size(alike)), first.cost


def _delete(items: Sequence[Item], folder: Path) -> int:
    from tasks.housekeeping.prune import InUse, remove

    freed, gone, failed = 0, [], 0
    for item in items:
        try:
            freed += remove(item)
        except FileNotFoundError:
            continue  # somebody else was quicker
        except (InUse, OSError) as error:
            failed += not isinstance(error, InUse)
            print(f"{seen_from(folder, item.path)} stays: {error}", file=sys.stderr)
        else:
            gone.append(item)
    print(f"freed {decimal(freed)}: {_counts(gone)}; {decimal(shutil.disk_usage(folder).free)} free")
    return 1 if failed else 0


def _told(items: Sequence[Item]) -> str:
    return f"{_counts(items)}, {decimal(_size(items))}"


def _counts(items: Sequence[Item]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for item in items:
        counts[item.kind] += 1
    return ", ".join(f"{count:,} of {kind}" for kind, count in counts.items()) or "nothing"


def _size(items: Sequence[Item]) -> int:
    companions = (path for item in items for path in item.companions)
    return sum(item.extent.disk_bytes for item in items) + sum(path.lstat().st_size for path in companions)


if __name__ == "__main__":
    sys.exit(main())
