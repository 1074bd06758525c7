"""Rows of problem files: JSON lines, parquet, or a hub dataset for those who can reach a hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from envs.base import Problem

Row = Mapping[str, Any]
P = TypeVar("P", bound=Problem)

FILE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


class ProblemSourceError(ValueError):
    """A problem file or dataset that is not there or cannot be read as problems."""


def load_problems(source: str, from_row: Callable[[Row], P]) -> list[P]:
    """All problems of `source`, one a row, in file order.

    Raises:
        ProblemSourceError: it is not there, is empty, or a row cannot be read; the message names the row.
    """
    problems = []
    for where, row in read_rows(source):
        try:
            problems.append(from_row(row))
        except (KeyError, TypeError, ValueError, SyntaxError, RecursionError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ProblemSourceError(f"{where}: {reason}; its fields are {', '.join(sorted(row))}") from error
    if not problems:
        raise ProblemSourceError(f"{source} holds no problems")
    return problems


def read_rows(source: str) -> Iterator[tuple[str, Row]]:
    """Rows of a file or hub dataset, each with the words that say where it stands."""
    if source.endswith(FILE_SUFFIXES):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ProblemSourceError(_not_there(path))
        return _parquet_rows(path) if source.endswith(".parquet") else _jsonl_rows(path)
    return _hub_rows(source)


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Row]]:
    for where, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise ProblemSourceError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ProblemSourceError(f"{where}: not JSON ({reason}); wanted one problem a line") from error
        if not isinstance(row, dict):
            raise ProblemSourceError(f"{where}: a JSON {type(row).__name__}; wanted an object with the problem")
        yield where, row


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path}:{number}", line
    except (EOFError, OSError, zlib.error) as error:
        raise ProblemSourceError(
            f"{path}:{number + 1}: the file cannot be read on from here ({error}); is it whole?"
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise ProblemSourceError(f"{path}: not a parquet file that can be read ({reason}); is it whole?") from error
    for number, row in enumerate(rows, 1):
        yield f"{path} row {number}", row


def _hub_rows(name: str) -> Iterator[tuple[str, Row]]:
    """`owner/name`, `owner/name:config` or `owner/name:config:split`; the split is `train` unless given."""
    import datasets

    repo, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(repo, config or None, split=split or "train")
    except Exception as error:  # the library raises its own errors, requests' and the hub's: each means not had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProblemSourceError(
            f"{name!r} is neither a file (.jsonl, .jsonl.gz, .parquet) nor a hub dataset that can be loaded: {reason}"
        ) from error
    for number, row in enumerate(rows, 1):
        yield f"{name} row {number}", row


def _not_there(path: Path) -> str:
    folder = path.parent
    found = sorted(p.name for p in folder.iterdir() if p.name.endswith(FILE_SUFFIXES)) if folder.is_dir() else []
    there = f"{folder} holds {', '.join(found[:8])}" if found else f"{folder} holds no problem files"
    return f"no problem file at {path}; {there}"
