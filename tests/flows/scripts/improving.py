"""Scripts for the scripted engine: right half of the time, nine times in ten with an adapter, and variations."""

from envs.problems.math_problems import builtin
from tasks.engines.base import ChatRequest

TRAIN = {problem.statement: problem.answer for problem in builtin("train")}
ANSWERS = TRAIN | {problem.statement: problem.answer for problem in builtin("heldout")}
adapters: list[str | None] = []
"""The adapter of each request."""


def _statement(request: ChatRequest) -> str:
    return request.messages[0]["content"].rpartition("Problem: ")[2]


def right_reply(request: ChatRequest) -> str:
    """The answer."""
    return f"\\boxed{{{ANSWERS[_statement(request)]}}} seed {request.seed}"


def reply(request: ChatRequest) -> str:
    """The answer half of the time, and nine times in ten with an adapter."""
    adapters.append(request.adapter)
    is_right = request.seed % 100 < (50 if request.adapter is None else 90)
    return right_reply(request) if is_right else f"\\boxed{{-1}} seed {request.seed}"


def reply_until_adapted(request: ChatRequest) -> str:
    """The same, but an adapter solves no training problem."""
    if request.adapter is not None and _statement(request) in TRAIN:
        return f"\\boxed{{-1}} seed {request.seed}"
    return reply(request)
