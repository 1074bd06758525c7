"""The promises that every env keeps, as one check that an author runs: `check_env(MyEnv)`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

from envs.base import Ask, Env, EnvConfig, Problem
from envs.gold import play_gold
from envs.sandbox import open_sandbox
from envs.sandbox.base import Sandbox, SandboxConfig

GARBAGE = (
    "",
    "I do not know.",
    "```",
    "\\boxed{",
    "```python\nwhile True print(\n```",
    '```json\n[{"a": }]\n```',
    "\x00é😀",
)


def check_env(env_class: type[Env], config: EnvConfig | None = None, source: str | None = None, count: int = 5) -> None:
    """Play `count` problems of each split with reference and with garbage replies, under every set of roles.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    config = config or EnvConfig(name=f"{env_class.__module__}:{env_class.__name__}")
    sandbox = open_sandbox(SandboxConfig())
    train, heldout = env_class.problems(source, "train"), env_class.problems(source, "heldout")
    _check_splits(train, heldout)
    for seats in env_class.seatings or (env_class.roles,):
        seated = config.model_copy(update={"roles": seats})
        for problem in (*train[:count], *heldout[:count]):
            _check_problem(env_class, problem, seated, sandbox)


def _check_splits(train: Sequence[Problem], heldout: Sequence[Problem]) -> None:
    assert train, "the train split is empty"
    assert heldout, "the held-out split is empty"
    hashes = [problem.hash for problem in (*train, *heldout)]
    assert len(set(hashes)) == len(hashes), "two problems, or two splits, share content"


def _check_problem(env_class: type[Env], problem: Problem, config: EnvConfig, sandbox: Sandbox) -> None:
    where = f"{config.name} played by {config.roles}, problem {problem.hash}"
    assert play_gold(env_class(problem, config, sandbox)), f"{where}: the reference answer does not score success"
    garbage = itertools.cycle(GARBAGE)
    env = env_class(problem, config, sandbox)
    rounds = _play(env, lambda ask: next(garbage))
    assert env.success is False, f"{where}: garbage replies end with success={env.success!r}"
    json.dumps(env.metadata)
    for ask in itertools.chain.from_iterable(rounds):
        assert ask.turn_idx < config.max_turns, f"{where}: {ask.role} was asked more than max_turns times"
        assert ask.reward is None or 0 <= ask.reward <= 1, f"{where}: the reward {ask.reward} is not between 0 and 1"
        assert ask.messages and ask.messages[-1]["role"] == "user", f"{where}: an ask must end with a user's message"
    again = _play(env_class(problem, config, sandbox), lambda ask: "")
    once_more = _play(env_class(problem, config, sandbox), lambda ask: "")
    assert _texts(again) == _texts(once_more), f"{where}: the same replies led to other asks"


def _play(env: Env, answer: Callable[[Ask], str]) -> list[list[Ask]]:
    rounds = []
    play = env.play()
    try:
        asks = next(play)
        while True:
            rounds.append(asks)
            asks = play.send([answer(ask) for ask in asks])
    except StopIteration:
        return rounds


def _texts(rounds: list[list[Ask]]) -> list[list[str]]:
    return [[message["content"] for ask in asks for message in ask.messages] for asks in rounds]
