"""Collection through a real vLLM on the CPU: as many tokens a second as the server gives to a bare load generator?

Run by `make bench`, or: PYTHONPATH=. python tests/benchmarks/bench_vllm.py [--turns TURNS].

256 episodes of math_env in each turn. First Winnow plays them; then a load generator that knows all of the requests
from the start sends the very same ones, at several levels of concurrency, and the best level counts. The same with
episodes of one turn, without programs: what Winnow itself costs. For verifiers the episodes are of one turn, too. No
prompt is found in a cache: whoever came second would be faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.engines.vllm.command import ServerSpec
from tests.benchmarks.vllm_clients.work import Measured, Work
from tests.tasks.engines.vllm.serving import KEY, STARTER, serving

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "vllm_clients"
VLLM_PYTHON = ROOT / ".venv-vllm/bin/python"
RIVALS_PYTHON = ROOT / ".venv-bench/bin/python"
BARE_LEVELS = (32, 64, 128)
MANY = 1000
"""Episodes in flight, many more than the best level has."""


@dataclass(frozen=True)
class Target:
    """A ratio of rates in the same turn, by the median of the turns."""

    text: str
    wanted: float
    ratios: list[float]

    @property
    def found(self) -> float:
        return statistics.median(self.ratios)


def run(script: str, work: Work, python: str | Path = sys.executable) -> Measured:
    """One client, in a process of its own."""
    done = subprocess.run(
        [python, CLIENTS / script, json.dumps(asdict(work))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_KEY": KEY, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(url: str, num_turns: int, folder: Path) -> tuple[dict[str, list[Measured]], list[Target]]:
    """Every turn has seeds of its own, so that no turn repeats another's replies."""
    found: dict[str, list[Measured]] = defaultdict(list)
    full = Work(url, str(folder / "full.jsonl"), 256, 128, [], 3, 256, 0)
    single = replace(full, requests=str(folder / "single.jsonl"), roles=["math_single_agent"], max_turns=1)
    for turn in range(num_turns):
        played = replace(full, seed=turn)
        found["Winnow"].append(run("winnow_math.py", played))
        for level in BARE_LEVELS:
            found[f"bare, {level} in flight"].append(run("bare_replay.py", replace(played, concurrency=level)))
        many = replace(played, num_episodes=MANY, concurrency=MANY, requests=str(folder / "many.jsonl"))
        found["Winnow, 1,000 episodes"].append(run("winnow_math.py", replace(many, concurrency=128)))
        found["Winnow, 1,000 in flight"].append(run("winnow_math.py", many))
        found["Winnow, one turn"].append(run("winnow_math.py", replace(single, seed=turn)))
        for level in BARE_LEVELS:
            once = replace(single, seed=turn, concurrency=level)
            found[f"bare, one turn, {level} in flight"].append(run("bare_replay.py", once))
        found["verifiers, one turn"].append(run("verifiers_math.py", replace(single, seed=turn), RIVALS_PYTHON))

    def best_bare(what: str) -> list[Measured]:
        return max(
            (found[f"{what}, {level} in flight"] for level in BARE_LEVELS),
            key=lambda runs: statistics.median(one.tokens_per_s for one in runs),
        )

    def ratios(mine: list[Measured], other: list[Measured], what: str) -> list[float]:
        return [getattr(a, what) / getattr(b, what) for a, b in zip(mine, other, strict=True)]

    return found, [
        Target(
            "tokens/s, in times of a bare load generator's at its best level",
            0.95,
            ratios(found["Winnow"], best_bare("bare"), "tokens_per_s"),
        ),
        Target(
            "the same for episodes of one turn, whose env runs no programs beside the server",
            0.95,
            ratios(found["Winnow, one turn"], best_bare("bare, one turn"), "tokens_per_s"),
        ),
        Target(
            "tokens/s with 1,000 episodes in flight, in times of those with 128",
            0.9,
            ratios(found["Winnow, 1,000 in flight"], found["Winnow, 1,000 episodes"], "tokens_per_s"),
        ),
        Target(
            "episodes/s of one turn, in times of verifiers'",
            1.0,
            ratios(found["Winnow, one turn"], found["verifiers, one turn"], "episodes_per_s"),
        ),
    ]


def show(console: Console, found: dict[str, list[Measured]], targets: list[Target]) -> None:
    """Two tables."""
    table = Table(title="math_env through a real vLLM on the CPU, medians of the turns")
    for column in ("", "tokens/s", "episodes/s", "requests"):
        table.add_column(column, justify="right" if column else "left")
    for name, runs in found.items():
        tokens = statistics.median(one.tokens_per_s for one in runs)
        table.add_row(
            name,
            f"{tokens:,.0f}" if tokens else "-",
            f"{statistics.median(one.episodes_per_s for one in runs):.1f}",
            f"{statistics.median(one.num_requests for one in runs):.0f}",
        )
    console.print(table)
    table = Table(title="targets")
    for column in ("", "wanted", "found", "in each turn", "verdict"):
        table.add_column(column, justify="right" if column else "left")
    for target in targets:
        verdict = "[green]met[/]" if target.found >= target.wanted else "[red]MISSED[/]"
        each = " ".join(f"{ratio:.2f}" for ratio in target.ratios)
        table.add_row(target.text, f">= {target.wanted:g}", f"{target.found:.2f}", each, verdict)
    console.print(table)


def main(num_turns: int) -> int:
    """Measure and show. The exit code says whether all targets are met."""
    console = Console(width=120)
    for python, target in ((VLLM_PYTHON, "install-vllm"), (RIVALS_PYTHON, ".venv-bench")):
        if not python.exists():
            console.print(f"no {python}: make {target} builds it")
            return 1
    console.print(f"load {os.getloadavg()[0]:.1f} before the first turn")
    with (
        serving(ServerSpec(STARTER), "--no-enable-prefix-caching", python=VLLM_PYTHON) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        found, targets = measure(url, num_turns, Path(folder))
    show(console, found, targets)
    return 0 if all(target.found >= target.wanted for target in targets) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="how often each client is measured")
    sys.exit(main(parser.parse_args().turns))
