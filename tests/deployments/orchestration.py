"""A Prefect server, a worker and the deployments, as a machine has them: real processes, with a home of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
T = TypeVar("T")
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def wait_until(condition: Callable[[], T], within_s: float = 240.0) -> T:
    """What the condition gives once that is true."""
    until = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.5)
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def postgres_programs() -> Path | None:
    """The folder with PostgreSQL's programs, the newest one's, if it is installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    return folders[-1] if folders else Path(found).parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """An empty PostgreSQL on loopback, and the URL of the database `prefect` in it, for Prefect."""
    programs = postgres_programs()
    assert programs is not None
    folder, port = Path(tempfile.mkdtemp(prefix="winnow-postgres-")), free_port()
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "cwd": "/"} if os.geteuid() == 0 else {}
    (folder / "password").write_text("of a test")
    for path in (folder, folder / "password") if user else ():
        shutil.chown(path, user["user"], user["group"])
    data = folder / "data"
    log = (folder / "log").open("wb")

    def run(*command: object) -> None:
        subprocess.run([str(word) for word in command], check=True, stdout=log, stderr=log, **user)

    run(programs / "initdb", "-D", data, "-U", "prefect", "-A", "scram-sha-256", "--pwfile", folder / "password", "-N")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    server = subprocess.Popen([programs / "postgres", "-D", data, *options.split()], stdout=log, stderr=log, **user)
    try:
        wait_until(lambda: "ready to accept" in (folder / "log").read_text(), 30)
        at_server = ("-h", "127.0.0.1", "-p", port, "-U", "prefect")
        user["env"] = {**os.environ, "PGPASSWORD": "of a test"}
        run(programs / "createdb", *at_server, "prefect")
        yield f"postgresql+asyncpg://prefect:of%20a%20test@127.0.0.1:{port}/prefect"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


PUNCTUAL = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    # That one looks two seconds back, and misses what it is late for; this one misses nothing.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
}
"""Settings of a server whose scheduler does not keep a test waiting."""


class Orchestration:
    """What is deployed on a server. `worker` is the process of the worker that was started last."""

    def __init__(self, folder: Path, server: str) -> None:
        """`server`: its address."""
        self.folder = folder
        self.url = f"{server}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "results"),
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SCRIPTS))),
            "PROJ_ROOT": str(ROOT),
            "GATED_FOLDER": str(folder),
        }
        self.allow(0)
        (folder / "asked").touch()
        self.worker: subprocess.Popen[bytes] | None = None

    def prefect(self, *arguments: str) -> str:
        """Run one command of Prefect's. Returns what it said."""
        done = subprocess.run([*PREFECT, *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(self) -> None:
        command = [*PREFECT, "worker", "start", "--pool", "local"]
        with (self.folder / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def worker_log(self) -> str:
        return (self.folder / "worker.log").read_text()

    @cached_property
    def client(self) -> SyncPrefectClient:
        with temporary_settings({PREFECT_API_URL: self.url}):
            return get_client(sync_client=True)

    def set_parameters(self, deployment: str, parameters: Mapping[str, Any]) -> None:
        self.client.update_deployment(self._id(deployment), DeploymentUpdate(parameters=dict(parameters)))

    def make_due(self, deployment: str) -> None:
        """Have the scheduler itself start a run of it in some seconds, and no other for an hour."""
        id_ = self._id(deployment)
        for delay_s in (4, 10, 30, 60):  # a schedule that the scheduler sees too late is not due
            when = datetime.now(UTC) + timedelta(seconds=delay_s)
            for old in self.client.read_deployment_schedules(id_):
                self.client.delete_deployment_schedule(id_, old.id)
            schedule = IntervalSchedule(interval=timedelta(hours=1), anchor_date=when)
            self.client.create_deployment_schedules(id_, [(schedule, True)])
            while datetime.now(UTC) < when:
                if any(run.expected_start_time == when for run in self._runs(id_)):
                    return
                time.sleep(0.3)
        raise AssertionError("the scheduler does not start it")

    def runs(self, deployment: str) -> list[FlowRun]:
        """Its runs that are due by now, the oldest first."""
        runs = self._runs(self._id(deployment))
        return [run for run in runs if run.expected_start_time and run.expected_start_time <= datetime.now(UTC)]

    def _runs(self, deployment: UUID) -> list[FlowRun]:
        of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        return self.client.read_flow_runs(flow_run_filter=of_it, sort=FlowRunSort.EXPECTED_START_TIME_ASC)

    def _id(self, deployment: str) -> UUID:
        return self.client.read_deployment_by_name(deployment).id

    def wait_for_state(self, run: UUID, state: str) -> None:
        """Wait until it has a state of this name; one that it ends in before that, after now, is a failure."""
        before = self.client.read_flow_run(run).state_id

        def is_so() -> bool:
            found = self.client.read_flow_run(run).state
            assert found is not None
            is_new_end = found.is_final() and found.id != before
            assert found.name == state or not is_new_end, self.client.read_flow_run_states(run)
            return found.name == state

        wait_until(is_so)

    def cancel(self, run: UUID) -> None:
        self.client.set_flow_run_state(run, Cancelling())

    def allow(self, requests: int) -> None:
        """Let the gated script answer so many requests more."""
        asked = self.folder / "asked"
        so_far = len(asked.read_text().splitlines()) if asked.exists() else 0
        tmp = self.folder / "allowed.tmp"
        tmp.write_text(str(so_far + requests))
        tmp.replace(self.folder / "allowed")

    def asked(self) -> int:
        return len((self.folder / "asked").read_text().splitlines())

    def descendants(self) -> list[psutil.Process]:
        """The processes of the runs that the worker has started, and all that those have started."""
        assert self.worker is not None
        return psutil.Process(self.worker.pid).children(recursive=True)

    def stop_worker(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            family = self.descendants()
            self.worker.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.worker.wait(15)
            for left in [self.worker, *family]:
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    left.kill()
            self.worker.wait()


def are_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
