"""Data files, row by row: however long they are, one row is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tasks.dataset.layouts import COLUMNS, LAYOUTS
from tasks.dataset.records import Record
from tasks.dataset.rows import DataFileError, check_row, parse_json

_PARQUET = b"PAR1"
_ROWS_AT_ONCE = 256
"""Rows of a parquet file that are unpacked together."""


class Located(NamedTuple):
    """A row, and where it stands."""

    record: Record
    file: int
    """Index of its file among those that are read."""
    number: int
    """Line in that file or, in a parquet file, row; from 1."""


def read_records(paths: Sequence[Path]) -> Iterator[Located]:
    """All rows of data files, in order, each checked. A file is JSONL or, if it begins as one, parquet.

    Raises:
        DataFileError: a file cannot be read or a row cannot be trained on, with file:line.
    """
    for file, path in enumerate(paths):
        for number, row in _rows(path):
            yield Located(_to_record(row, f"{path}:{number}"), file, number)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open("rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                yield from _parquet_rows(path)
                return
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, parse_json(line, f"{path}:{number}")
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read: {error.strerror or error}; wanted a JSONL or parquet file."
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not (columns := [name for name in COLUMNS if name in names]):
                raise DataFileError(f"{path}: found the columns {', '.join(names)}; wanted {LAYOUTS}.")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _without_nulls(row)
    except ArrowException as error:
        why = " ".join(str(error).split())
        raise DataFileError(f"{path}: broken parquet after row {number}: {why}; write the file again.") from error


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """In columns every row has every key; where it is null, the row does not have it."""
    row = {key: value for key, value in row.items() if value is not None}
    if isinstance(metadata := row.get("metadata"), dict):
        row["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    return row


def _to_record(row: Any, where: str) -> Record:
    checked = check_row(row, where)
    try:
        return Record.model_validate({"messages": checked["messages"], "metadata": checked.get("metadata") or {}})
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise DataFileError(f"{where}: {field} is {fault['input']!r}; {fault['msg']}; mend or delete it.") from None
