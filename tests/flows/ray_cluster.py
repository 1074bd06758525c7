"""A real Ray cluster of several nodes on this machine, and an S3 server: all ended, by process id.

Ray's servers listen on all interfaces, whatever they are told; they do nothing for who has not the cluster's token.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STARTED_WITHIN_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayCluster:
    """Nodes on loopback with one CPU each. Whatever they write goes to a folder of their own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: what workers shall have in theirs."""
        # Ray's sockets lie there, and a path of a socket has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._port = free_port()
        self.address = f"127.0.0.2:{self._port}"  # Ray would take 127.0.0.1 for the machine's address to the outside
        self.environment = {
            **os.environ,
            **environment,
            "HOME": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "10",
        }
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._known: set[psutil.Process] = set()

    def start_node(self) -> subprocess.Popen[bytes]:
        """Start a node, the head first, and wait until it is one of the cluster."""
        head = ["--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        which = [f"--address={self.address}"] if self._nodes else [*head, f"--ray-client-server-port={free_port()}"]
        where = [f"--node-ip-address=127.0.0.{2 + len(self._nodes)}", f"--dashboard-agent-listen-port={free_port()}"]
        limits = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 * 1024**2}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where, *limits, *which]
        log = (self.folder / f"node-{len(self._nodes)}.log").open("wb")
        with log:
            node = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self._nodes.append(node)
        deadline = time.monotonic() + STARTED_WITHIN_S
        while self.raylet(node) is None:
            assert node.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.1)
        return node

    def raylet(self, node: subprocess.Popen[bytes]) -> psutil.Process | None:
        """The process that is a node: what it has started ends with it."""
        return next((p for p in psutil.Process(node.pid).children() if p.name() == "raylet"), None)

    def node_of(self, worker: int) -> psutil.Process:
        """The raylet whose worker a process is."""
        return next(p for p in psutil.Process(worker).parents() if p.name() == "raylet")

    def stop(self) -> None:
        """End all that was started here, whoever it belongs to by now."""
        self._look()
        for node in self._nodes:
            node.terminate()
        psutil.wait_procs(self._known, 5)
        while alive := self._look():
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, 10)
        for node in self._nodes:
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_node(self, raylet: psutil.Process) -> None:
        """End a node as a power cut would, but for what it has started and what notices that by itself."""
        self._look()  # while it is still known whose its children are
        raylet.kill()

    def _look(self) -> set[psutil.Process]:
        """The live processes of the cluster: those with its home, and what they started, which may hide it."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.folder):
                    self._known |= {process, *process.children(recursive=True)}
        return {p for p in self._known if p.is_running() and p.status() != psutil.STATUS_ZOMBIE}


@contextmanager
def ray_cluster(num_nodes: int, environment: Mapping[str, str]) -> Iterator[RayCluster]:
    cluster = RayCluster(environment)
    try:
        for _ in range(num_nodes):
            cluster.start_node()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server that speaks S3, with an empty bucket `winnow`: the environment that leads to it."""
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a-key-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _make_bucket(server, environment)
            yield environment
        finally:
            server.terminate()
            server.wait(20)


def _make_bucket(server: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        skip_instance_cache=True,
    )
    deadline = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            fs.mkdir("winnow")
            return
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
