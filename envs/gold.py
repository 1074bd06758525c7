"""The gold check: does a player who knows the reference answers win? If not, the problem or its judge is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from envs.base import Env, EnvConfig, Problem
from envs.grading import GradingError
from envs.sandbox.base import Sandbox


def play_gold(env: Env) -> bool:
    """Play one episode with reference replies; whether it succeeds."""
    play = env.play()
    try:
        asks = next(play)
        while True:
            asks = play.send([env.gold(ask) for ask in asks])
    except StopIteration:
        return bool(env.success)


def failing_gold(
    env_class: type[Env], problems: Sequence[Problem], config: EnvConfig, sandbox: Sandbox, workers: int = 2
) -> Iterator[Problem]:
    """The problems whose reference answer does not score success, in order."""

    def is_solved(problem: Problem) -> bool:
        try:
            return play_gold(env_class(problem, config, sandbox))
        except GradingError:  # a reference that fails its own check
            return False

    with ThreadPoolExecutor(workers) as pool:
        for problem, solved in zip(problems, pool.map(is_solved, problems), strict=True):
            if not solved:
                yield problem
