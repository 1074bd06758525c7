"""Playing the adding game with an engine that has to be started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from envs.base import Env, EnvConfig
from tasks.engines.base import ChatRequest, Completion, Engine, Sampling
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.plan import Slot
from tasks.rollout.play import play_owed
from tests.tasks.rollout.adding_game import AddingGame, NoSandbox


def request(
    text: str = "hi", seed: int = 0, sampling: Sampling | None = None, adapter: str | None = None
) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], sampling or Sampling(max_tokens=24), seed, adapter)


def ask(engine: Engine, *requests: ChatRequest) -> list[Completion]:
    """What the engine, once started, answers to requests that it is sent at once."""

    async def run() -> list[Completion]:
        async with engine:
            return list(await asyncio.gather(*(engine.generate(r) for r in requests)))

    return asyncio.run(run())


def play_with(
    engine: Engine,
    slots: Sequence[Slot],
    folder: Path,
    env_class: type[Env] = AddingGame,
    max_tokens: int = 24,
    max_error_rate: float = 0.05,
    episode_timeout_s: float | None = None,
) -> list[Episode]:
    """Play what the journal in a folder does not hold, and read all that it holds then."""

    async def run(journal: Journal) -> None:
        async with engine:
            await play_owed(
                slots,
                env_class=env_class,
                env_config=EnvConfig(name="adding"),
                sandbox=NoSandbox(),
                engine=engine,
                journal=journal,
                collect=CollectConfig(max_tokens=max_tokens, max_error_rate=max_error_rate),
                max_concurrency=16,
                timeout_s=30.0,
                episode_timeout_s=episode_timeout_s,
            )

    with Journal.open(folder, {"env": {"name": "adding"}}) as journal:
        asyncio.run(run(journal))
    return read_episodes(folder)
