"""What the clients of a real vLLM are asked to do, and what they found. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Episodes of math_env, or the requests that they came to."""

    url: str
    requests: str
    """File of the requests: written by Winnow, read by the others."""
    num_episodes: int
    concurrency: int
    roles: list[str]
    """Empty: the env's own."""
    max_turns: int
    max_tokens: int
    seed: int
    """Of the sampling. Every turn has another one, so that no turn finds the last one's replies in a cache."""


@dataclass(frozen=True)
class Measured:
    """What came back."""

    tokens_per_s: float
    episodes_per_s: float
    num_requests: int
