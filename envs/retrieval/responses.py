"""What endpoints have answered, kept on disk so that no question is asked twice, not even by a later run."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

from envs.retrieval.base import Document
from envs.retrieval.cache import unwritable

WAIT_S = 60.0
"""How long one process waits for another that is writing."""


class ResponseCache:
    """Documents by request, in an SQLite file. Safe for many threads and processes at once.

    Only hashes of the requests are kept, so that nothing in an endpoint's address can be read from the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def get(self, request: Sequence[str | int]) -> list[Document] | None:
        """What was answered to `request`; None if nothing was.

        Raises:
            SearchError: the file cannot be used.
        """
        try:
            row = self._connection().execute("SELECT documents FROM responses WHERE request = ?", (_key(request),))
            found = row.fetchone()
        except sqlite3.Error as error:
            raise unwritable(self._path, error) from error
        return None if found is None else [Document(*fields) for fields in json.loads(found[0])]

    def put(self, request: Sequence[str | int], documents: Sequence[Document]) -> None:
        """Keep what was answered to `request`.

        Raises:
            SearchError: the file cannot be used.
        """
        text = json.dumps([astuple(document) for document in documents])
        try:
            with self._connection() as connection:
                connection.execute("INSERT OR REPLACE INTO responses VALUES (?, ?)", (_key(request), text))
        except sqlite3.Error as error:
            raise unwritable(self._path, error) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection; it is closed with the thread."""
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self._path, timeout=WAIT_S)
            connection.execute("CREATE TABLE IF NOT EXISTS responses (request TEXT PRIMARY KEY, documents TEXT)")
            self._local.connection = connection
        found: sqlite3.Connection = self._local.connection
        return found


def forget_all(path: Path) -> None:
    """Empty the file at `path`, whoever else has it open: to remove it would take a transaction's journal from it.

    Raises:
        sqlite3.Error: somebody is writing, or it is no such file.
    """
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
        connection.execute("DELETE FROM responses")
        connection.execute("VACUUM")


def _key(request: Sequence[str | int]) -> str:
    return hashlib.sha256(json.dumps(list(request)).encode()).hexdigest()
