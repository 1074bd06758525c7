"""What the runs of a user share, wherever they were started: token rows, search indexes, logs, results of tasks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.housekeeping.item import LEFT_AFTER_S, Item, extent, leftovers, temporary

RESPONSES = "responses.sqlite"
"""What search services have answered: many processes have it open at once."""


def cache_folder() -> Path:
    """Winnow's folder in the user's cache folder; it may not be there."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "winnow"


def log_folder() -> Path:
    """Where servers that runs have started write their logs; it may not be there."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "winnow" / "vllm"


def cache_items(folder: Path) -> Iterator[Item]:
    """What can be made again, in Winnow's cache folder."""
    for path in _visible(folder / "tokens", "*"):
        if path.is_dir():
            yield _made_again(path, "token rows", "data files are tokenised again", path.with_name(f"{path.name}.lock"))
    for path in _visible(folder, "bm25-*"):
        if path.is_dir():
            yield _made_again(path, "search index", "it is built again", path.with_name(f"{path.name}.lock"))
    for path in _visible(folder, RESPONSES):
        yield _made_again(path, "answers of search services", "they are asked again")
    yield from leftovers([*temporary(folder), *temporary(folder / "tokens")])


def log_items(folder: Path) -> Iterator[Item]:
    """The logs of vLLM servers."""
    for path in _visible(folder, "*.log"):
        yield Item(kind="logs", what="vLLM log", path=path, extent=extent(path), series=str(folder))


def result_items(folder: Path) -> Iterator[Item]:
    """Results of this project's tasks, in the folder where Prefect keeps those of all."""
    for path in _visible(folder, "winnow-*"):
        gone = _what_is_gone(path)
        found = extent(path)
        yield Item(
            kind="caches",
            what="result of a task",
            path=path,
            extent=found,
            state="of no use" if gone else "whole",
            detail=gone,
            cost="nothing, unless its disk is only away"
            if gone
            else "its step is done again, and resumes from what is there",
            # What is new may be half written, or of a disk that is not there at the moment.
            worthless=bool(gone) and time.time() - found.modified > LEFT_AFTER_S,
            series="result",
        )


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _made_again(path: Path, what: str, cost: str, lock: Path | None = None) -> Item:
    return Item(kind="caches", what=what, path=path, extent=extent(path), cost=cost, series=what, lock=lock)


def _what_is_gone(path: Path) -> str:
    """Why a result cannot be taken any more; empty if it may be."""
    try:
        result = json.loads(json.loads(path.read_bytes())["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return "not a result"
    return next((f"{found} is gone" for found in _paths(result) if not Path(found).exists()), "")


def _paths(result: Any) -> Iterator[str]:
    """Where the files are that a result refers to."""
    if isinstance(result, dict):
        for key, value in result.items():
            if key == "path" and isinstance(value, str):
                yield value
            else:
                yield from _paths(value)
    elif isinstance(result, list):
        for value in result:
            yield from _paths(value)
