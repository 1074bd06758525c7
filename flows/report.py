"""Make `report.html` of a data folder: its figures, and every episode as a conversation. Two folders side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """0, or 1 where there is nothing to show; argparse ends with 2 where the command is wrong."""
    parser = argparse.ArgumentParser(prog="python -m flows.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a data folder, such as ./sft_data_math")
    parser.add_argument("other", type=Path, metavar="DIR2", nargs="?", help="one to compare it with")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (DIR/report.html)")
    line = parser.parse_args()

    from tasks.reporting.page import PAGE, write_page  # matplotlib and pandas take a second

    folders = [line.folder, *([line.other] if line.other else [])]
    path = line.output or line.folder / (
        PAGE if line.other is None else f"report_against_{line.other.resolve().name}.html"
    )
    try:
        write_page(folders, path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
