"""A script for the scripted engine: it is right half of the time, and nine times in ten with an adapter."""

from envs.problems.math_problems import builtin
from tasks.engines.base import ChatRequest

ANSWERS = {p.statement: p.answer for split in ("train", "heldout") for p in builtin(split)}  # type: ignore[arg-type]
adapters: list[str | None] = []
"""The adapter of each request."""


def reply(request: ChatRequest) -> str:
    adapters.append(request.adapter)
    statement = request.messages[0]["content"].rpartition("Problem: ")[2]
    is_right = request.seed % 100 < (50 if request.adapter is None else 90)
    return f"\\boxed{{{ANSWERS[statement] if is_right else -1}}} seed {request.seed}"
