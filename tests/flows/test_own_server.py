"""The server that a run starts for itself, where a home has been used by another Prefect."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.flows.test_command_line import ROOT, with_own_server

PROGRAM = """
import flows
from flows.own_server import start_own_server
start_own_server()
import os
print(os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL"))
"""


def start_in(home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **with_own_server(home)}
    environment.pop("PREFECT_API_DATABASE_CONNECTION_URL", None)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_database_that_a_newer_prefect_made_is_left_alone_and_another_one_is_used(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('feedc0ffee00')")
        connection.commit()
    before = database.read_bytes()
    done = start_in(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "was made by a newer Prefect; this run is noted in" in done.stderr
    assert str(tmp_path / "prefect-") in done.stdout
    assert database.read_bytes() == before


def test_a_database_of_this_prefects_own_is_used(tmp_path: Path) -> None:
    for _ in range(2):
        done = start_in(tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "None" and "newer" not in done.stderr
