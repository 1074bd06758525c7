"""What the clients of the instant endpoint share: problems, sampling, and how one is measured.

Needs nothing but the standard library, because each client is a process of its own with its own environment.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512}
NUM_BEFORE = 100
"""Episodes before those that count, so that everything is imported."""


@dataclass(frozen=True)
class Load:
    """What a client is asked to do."""

    url: str
    model: str
    num_episodes: int
    concurrency: int
    """Most requests in flight, for a client that has such a limit."""
    finds_level: bool = False
    """Whether a client that can do so finds out how many are enough."""


@dataclass(frozen=True)
class Measured:
    """What a load cost a client's process."""

    episodes_per_s: float
    cpu_ms_per_episode: float
    peak_mb: float
    """Resident memory at its highest, imports included."""


def question(number: int) -> str:
    """A prompt of some 200 characters. The answer is 7, whatever the number, as the endpoint always says."""
    return f"What is {number + 7} - {number}? " + "Think first. " * 14


def is_right(reply: str) -> bool:
    return reply.endswith("the answer is 7.")


def measure(play: Callable[[Load], int]) -> None:
    """The main program of a client. `play` plays the episodes of a load and says how many were right: all of them."""
    load = Load(**json.loads(sys.argv[1]))
    play(replace(load, num_episodes=NUM_BEFORE))
    cpu_s, began = time.process_time(), time.perf_counter()
    num_right = play(load)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    assert num_right == load.num_episodes, f"{num_right} of {load.num_episodes} were right"
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(asdict(Measured(load.num_episodes / wall_s, 1000 * cpu_s / load.num_episodes, peak_mb))))
