"""What is promoted, how it came to that, and the way back: the history of a -promoted folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.tables import print_table

if TYPE_CHECKING:
    from tasks.promotion.history import Entry


def main() -> int:
    """0; 1 where nothing is promoted, or not what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m flows.promote", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="a -promoted folder, or one that holds some (here)"
    )
    parser.add_argument(
        "--roll-back",
        metavar="VERSION",
        nargs="?",
        const="",
        help="go back to a version, or `bare` for the bare model; without one, to what was promoted before",
    )
    arguments = parser.parse_args()

    from tasks.promotion.promoted import PromotionError, is_promoted_folder, roll_back  # it takes a second

    given: Path = arguments.folder
    folders = [given] if is_promoted_folder(given.absolute()) else sorted(given.glob("*-promoted"))
    try:
        if not folders:
            raise PromotionError(f"{given.absolute()} holds no -promoted folder; wanted where a flow has promoted one.")
        if arguments.roll_back is not None:
            if len(folders) > 1:
                names = ", ".join(map(str, folders))
                raise PromotionError(f"which one is to be rolled back? Name one of {names}.")
            roll_back(folders[0], arguments.roll_back or None)
        for folder in folders:
            _show(folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _show(folder: Path) -> None:
    from tasks.promotion.history import BARE_MODEL, present_version, read_history

    entries = read_history(folder)
    title = f"{folder}: {present_version(entries) or BARE_MODEL} is promoted"
    columns = ("when", "what", "version", "success", "difference, 95 % interval", "data files", "why")
    print_table(columns, map(_cells, entries), title)


def _cells(entry: Entry) -> list[str]:
    from tasks.promotion.history import BARE_MODEL

    proof = entry.proof
    rates = f"{100 * proof.before:.1f} % -> {100 * proof.after:.1f} %" if proof else ""
    change = f"{100 * proof.difference:+.1f} ({100 * proof.low:+.1f} to {100 * proof.high:+.1f})" if proof else ""
    data = f"{len(entry.data):,}" if entry.data else ""
    when = f"{entry.when.astimezone():%Y-%m-%d %H:%M}"
    return [when, entry.outcome, entry.version or BARE_MODEL, rates, change, data, entry.why]


if __name__ == "__main__":
    sys.exit(main())
