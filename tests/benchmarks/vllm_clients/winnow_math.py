"""Winnow as it collects math_env from a server that runs already. Notes the requests that it sent."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from work import Measured, Work

from envs import load_env_class
from envs.base import EnvConfig
from envs.problems.splits import training_problems
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.openai_http.engine import OpenAIHttpEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.journal import Journal, read_episodes
from tasks.rollout.plan import episode_seed, make_plan
from tasks.rollout.play import play_owed


async def collect(work: Work, folder: Path) -> Measured:
    env = EnvConfig(name="math_env", roles=work.roles or None, max_turns=work.max_turns)
    env_class = load_env_class("math_env")
    slots = make_plan(training_problems(env_class, env), work.num_episodes, 1)
    config = EngineConfig(base_url=work.url, max_concurrency=work.concurrency, api_key_env="BENCH_KEY")
    settings = CollectConfig(max_tokens=work.max_tokens, seed=work.seed)
    with (
        Journal.open(folder, {"benchmark": work.seed}) as journal,
        closing(open_sandbox(SandboxConfig())) as sandbox,
    ):
        async with OpenAIHttpEngine(config, ModelConfig()) as engine:
            began = time.perf_counter()
            await play_owed(
                slots,
                env_class=env_class,
                env_config=env,
                sandbox=sandbox,
                engine=engine,
                journal=journal,
                collect=settings,
                max_concurrency=config.max_concurrency,
                timeout_s=config.timeout_s,
            )
            wall_s = time.perf_counter() - began
    episodes = read_episodes(folder)
    assert len(episodes) == work.num_episodes
    turns = [(episode.key, turn) for episode in episodes for turn in episode.turns]
    with Path(work.requests).open("w") as file:
        for key, turn in sorted(turns, key=lambda pair: pair[1].turn_idx):
            seed = episode_seed(settings.sampling_seed(turn.agent_name), key, turn.agent_name, turn.turn_idx)
            file.write(json.dumps({"messages": turn.messages, "seed": seed}) + "\n")
    tokens = sum(turn.completion_tokens for _, turn in turns)
    return Measured(tokens / wall_s, work.num_episodes / wall_s, len(turns))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(asdict(asyncio.run(collect(Work(**json.loads(sys.argv[1])), Path(temporary))))))
