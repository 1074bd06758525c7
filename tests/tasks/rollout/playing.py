"""Playing the adding game into a journal, for tests; as a program, it collects slowly until it is killed.

python -m tests.tasks.rollout.playing FOLDER NUM_EPISODES MAX_CONCURRENCY LOG
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from envs.base import Env, EnvConfig
from tasks.engines.base import ChatRequest, Engine
from tasks.engines.scripted import ScriptedEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.episode import Episode
from tasks.rollout.journal import Journal
from tasks.rollout.plan import Slot, make_plan
from tasks.rollout.play import ALL_SHARED, play_owed
from tasks.rollout.progress import Progress
from tests.tasks.rollout.adding_game import AddingGame, NoSandbox, add_problems

IDENTITY = {"env": {"name": "adding", "max_turns": 3}, "seed": 0}


def plan(num_episodes: int, rollouts: int = 1) -> list[Slot]:
    return make_plan(add_problems(100), num_episodes, rollouts)


def answer_or_not(request: ChatRequest) -> str:
    """Right for three seeds in four; the reply depends on the request alone, as a sampled one does."""
    number = int(request.messages[0]["content"].split()[0])
    return str(number + 1) if request.seed % 4 else f"no idea ({request.seed})"


def play(
    slots: list[Slot],
    journal: Journal,
    engine: Engine | None = None,
    env_class: type[Env] = AddingGame,
    *,
    max_concurrency: int = 8,
    timeout_s: float = 30.0,
    episode_timeout_s: float | None = None,
    max_error_rate: float = 0.05,
    num_episodes: int = 1,
    env_timeout_s: float = 30.0,
    policies: Mapping[str, str] = ALL_SHARED,
    adapters: Collection[str] = (),
    progress: Progress | None = None,
) -> int:
    """`play_owed` with what the tests do not care about filled in."""
    return asyncio.run(
        play_owed(
            slots,
            env_class=env_class,
            env_config=EnvConfig(name="adding", timeout_s=env_timeout_s),
            sandbox=NoSandbox(),
            engine=engine or ScriptedEngine(answer_or_not),
            journal=journal,
            collect=CollectConfig(max_error_rate=max_error_rate, num_episodes=num_episodes),
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            episode_timeout_s=episode_timeout_s,
            policies=policies,
            adapters=adapters,
            progress=progress,
        )
    )


def timeless(episodes: list[Episode]) -> list[Episode]:
    """Episodes as they must be whenever and however they are played: in order, without their durations."""
    return sorted((e.model_copy(update={"duration_s": 0.0}) for e in episodes), key=lambda e: e.key)


def main(folder: Path, num_episodes: int, max_concurrency: int, log: Path) -> None:
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def slowly(request: ChatRequest) -> str:
        os.write(log_fd, f"{request.messages[0]['content']}\n".encode())
        await asyncio.sleep(random.uniform(0.0, 0.04))
        return answer_or_not(request)

    with Journal.open(folder, IDENTITY) as journal:
        play(plan(num_episodes), journal, ScriptedEngine(slowly), max_concurrency=max_concurrency)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
