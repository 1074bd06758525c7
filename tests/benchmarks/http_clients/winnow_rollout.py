"""Winnow as it collects: the rollout loop, the engine for servers, grading, and the journal with its syncs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from client import SAMPLING, Load, is_right, measure, question

from envs.base import Ask, Env, EnvConfig, Play, Problem, Split
from tasks.engines.base import Engine
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openai_http.engine import OpenAIHttpEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import Journal
from tasks.rollout.plan import make_plan
from tasks.rollout.play import play_owed
from tests.tasks.rollout.adding_game import NoSandbox


class Subtraction(Env):
    """One turn."""

    roles = ("player",)

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[Problem]:
        raise NotImplementedError("the load says how many")

    def play(self) -> Play:
        (reply,) = yield [self.ask("player", self.problem.statement)]
        self.success = is_right(reply)

    def gold(self, ask: Ask) -> str:
        return "So the answer is 7."


class FixedLevel(OpenAIHttpEngine):
    """As many requests in flight as are allowed, at once: as the other clients have them."""

    places = Engine.places  # type: ignore[assignment]


async def collect(load: Load, folder: Path) -> int:
    problems = [Problem(statement=question(number)) for number in range(load.num_episodes)]
    slots = make_plan(problems, load.num_episodes, 1)
    config = EngineConfig(base_url=load.url, model=load.model, max_concurrency=load.concurrency)
    engine_class = OpenAIHttpEngine if load.finds_level else FixedLevel
    with Journal.open(folder, {"benchmark": 1}) as journal:
        async with engine_class(config, ModelConfig()) as engine:
            await play_owed(
                slots,
                env_class=Subtraction,
                env_config=EnvConfig(),
                sandbox=NoSandbox(),
                engine=engine,
                journal=journal,
                collect=CollectConfig(num_episodes=load.num_episodes, **SAMPLING),
                max_concurrency=config.max_concurrency,
                timeout_s=config.timeout_s,
            )
        return sum(entry.success for entry in journal.finished.values())


def play(load: Load) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(collect(load, Path(folder)))


if __name__ == "__main__":
    measure(play)
