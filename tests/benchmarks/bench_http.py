"""Episodes a second against a server that answers at once: Winnow, a bare load generator, and what others play with.

Run by `make bench`, or: python tests/benchmarks/bench_http.py [--turns TURNS]. Exits with 1 if a target is missed. Each
measurement is a process of its own with one core; the server has another one. The clients take turns, so that whatever
else this machine does hits all alike, and ratios are of the same turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from http_clients.client import Load, Measured
from instant_endpoint import MODEL, instant_endpoint
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "http_clients"
BENCH_PYTHON = ROOT / ".venv-bench/bin/python"
CONCURRENCY = 64
MOST_CONCURRENCY = 1000
LONG_RUN = 40_000
"""Episodes of the runs at other levels: enough that opening 1,000 connections is no part worth mentioning of one."""


@dataclass(frozen=True)
class Way:
    """A client under a load that takes it some seconds."""

    name: str
    script: str
    num_episodes: int
    concurrency: int = CONCURRENCY
    finds_level: bool = False
    has_own_environment: bool = False

    def measure(self, url: str, core: int, hub: Path) -> Measured:
        python = BENCH_PYTHON if self.has_own_environment else sys.executable
        load = json.dumps(asdict(Load(url, MODEL, self.num_episodes, self.concurrency, self.finds_level)))
        process = subprocess.run(
            [python, CLIENTS / self.script, load],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(hub)},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        if process.returncode:
            raise SystemExit(f"{self.name} failed:\n{process.stderr[-3000:]}")
        return Measured(**json.loads(process.stdout.splitlines()[-1]))


BARE = Way("a bare aiohttp load generator", "bare_aiohttp.py", 10_000)
WINNOW = Way(f"Winnow, {CONCURRENCY} requests in flight", "winnow_rollout.py", 10_000)
LEVELS = [
    Way(f"Winnow, {level} in flight, a longer run", "winnow_rollout.py", LONG_RUN, level)
    for level in (CONCURRENCY, 256)
]
MANY = Way(f"Winnow, {MOST_CONCURRENCY} in flight, a longer run", "winnow_rollout.py", LONG_RUN, MOST_CONCURRENCY)
BARE_LEVELS = [
    Way(f"a bare aiohttp load generator, {level} in flight, a longer run", "bare_aiohttp.py", LONG_RUN, level)
    for level in (CONCURRENCY, MOST_CONCURRENCY)
]
"""What more connections cost whoever has them."""
FINDING = Way(f"Winnow, at most {CONCURRENCY}, finding its level", "winnow_rollout.py", 10_000, finds_level=True)
OPENAI = Way("a loop on the openai package", "openai_loop.py", 1000, has_own_environment=True)
VERIFIERS = Way("verifiers, SingleTurnEnv", "verifiers_env.py", 400, has_own_environment=True)
REPLACED = Way("a stand-in of the replaced loop", "replaced_loop.py", 400, 400, has_own_environment=True)
WAYS = [BARE, *BARE_LEVELS, WINNOW, FINDING, *LEVELS, MANY, OPENAI, VERIFIERS, REPLACED]


@dataclass(frozen=True)
class Results:
    """What was measured, by name of the way; the nth of each is of the same turn."""

    measured: dict[str, list[Measured]]

    def median(self, way: Way, what: str) -> float:
        return statistics.median(getattr(measured, what) for measured in self.measured[way.name])

    def ratio(self, way: Way, other: Way, what: str = "episodes_per_s") -> float:
        """By the median of the turns."""
        pairs = zip(self.measured[way.name], self.measured[other.name], strict=True)
        return statistics.median(getattr(mine, what) / getattr(its, what) for mine, its in pairs)


@dataclass(frozen=True)
class Target:
    text: str
    wanted: float
    found: float
    by_cpu_time: float
    """The same from the CPU time of the clients, which is less disturbed by what else the machine does."""

    @property
    def is_met(self) -> bool:
        return self.found >= self.wanted


def measure(num_turns: int) -> Results:
    """Every turn another way is first."""
    *_, client_core, server_core = sorted(os.sched_getaffinity(0))
    measured: dict[str, list[Measured]] = {way.name: [] for way in WAYS}
    with instant_endpoint(server_core) as url, tempfile.TemporaryDirectory() as hub:
        for turn in range(num_turns):
            first = turn % len(WAYS)
            for way in (*WAYS[first:], *WAYS[:first]):
                measured[way.name].append(way.measure(url, client_core, Path(hub)))
    return Results(measured)


def targets(results: Results) -> Iterator[Target]:
    """Rates of Winnow, in times of others' on the same server at the same concurrency."""

    def times_as_fast(way: Way, other: Way, wanted: float) -> Target:
        by_cpu_time = results.ratio(other, way, "cpu_ms_per_episode")
        return Target(f"{way.name}: times as fast as {other.name}", wanted, results.ratio(way, other), by_cpu_time)

    for other, wanted in ((BARE, 0.4), (OPENAI, 3), (VERIFIERS, 3), (REPLACED, 5)):
        yield times_as_fast(WINNOW, other, wanted)
    yield times_as_fast(MANY, max(LEVELS, key=lambda level: results.median(level, "episodes_per_s")), 0.9)


def show_results(console: Console, results: Results) -> None:
    table = Table(title="one-turn episodes against a server that answers at once, medians of the turns")
    for column in ("", "episodes", "episodes/s", "worst", "best", "CPU ms per episode", "peak memory, MB"):
        table.add_column(column, justify="right" if column else "left")
    for way in WAYS:
        rates = [measured.episodes_per_s for measured in results.measured[way.name]]
        table.add_row(
            way.name,
            f"{len(rates)} x {way.num_episodes:,}",
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f}",
            f"{max(rates):,.0f}",
            f"{results.median(way, 'cpu_ms_per_episode'):.3f}",
            f"{results.median(way, 'peak_mb'):.0f}",
        )
    console.print(table)


def show_targets(console: Console, found: list[Target]) -> None:
    table = Table(title="targets")
    for column in ("", "wanted", "found", "by CPU time", "verdict"):
        table.add_column(column, justify="right" if column else "left")
    for target in found:
        verdict = "[green]met[/]" if target.is_met else "[red]MISSED[/]"
        table.add_row(target.text, f">= {target.wanted:g}", f"{target.found:.2f}", f"{target.by_cpu_time:.2f}", verdict)
    console.print(table)


def main(num_turns: int) -> int:
    console = Console(width=120)
    if not BENCH_PYTHON.exists():
        console.print(f"no {BENCH_PYTHON}, where openai and verifiers are: make .venv-bench builds it")
        return 1
    if len(os.sched_getaffinity(0)) < 2:
        console.print("one core found; two are wanted, for a client and for the server")
        return 1
    load = f"load {os.getloadavg()[0]:.1f} before the first turn"
    console.print(f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, {load}")
    results = measure(num_turns)
    show_results(console, results)
    found = list(targets(results))
    show_targets(console, found)
    return 0 if all(target.is_met for target in found) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="how often each client is measured")
    sys.exit(main(parser.parse_args().turns))
