"""The in-process engine on a real GPU, which it leaves as it was. Run by `make test-gpu`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Sampling
from tasks.engines.config import EngineConfig, ModelConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device, or `-m gpu` was not given"),
]

REPOSITORY = Path(__file__).parents[4]
SUMS = [ChatRequest([{"role": "user", "content": f"What is {n} + 30?"}], Sampling(max_tokens=24), n) for n in range(96)]


def test_it_answers_there_and_gives_the_memory_back(tiny_model: Path) -> None:
    async def run() -> None:
        async with open_engine(ModelConfig(path=str(tiny_model)), EngineConfig(kind="in_process")) as engine:
            replies = await asyncio.gather(*map(engine.generate, SUMS))
            assert all(reply.completion_tokens for reply in replies)
            assert torch.cuda.memory_allocated() > 0

    asyncio.run(run())
    assert torch.cuda.memory_allocated() <= 64 << 20  # the workspace of cuBLAS stays as long as the process


def test_greedy_replies_begin_as_they_do_on_the_cpu() -> None:
    def first_words(num_gpus: int) -> list[str]:
        async def run() -> list[str]:
            config = EngineConfig(kind="in_process", num_gpus=num_gpus)
            async with open_engine(ModelConfig(path="starter"), config) as engine:
                greedy = [ChatRequest(one.messages, Sampling(temperature=0, max_tokens=8), 0) for one in SUMS[:32]]
                return [reply.text for reply in await asyncio.gather(*map(engine.generate, greedy))]

        return asyncio.run(run())

    here, there = first_words(0), first_words(1)
    assert sum(a == b for a, b in zip(here, there, strict=True)) >= 24  # bfloat16 rounds, so a few may part


def test_a_cache_that_does_not_fit_is_halved_and_all_are_answered() -> None:
    """Almost all of the GPU's memory is taken by somebody else: by a tensor of this test."""
    program = """
import asyncio, torch
from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Sampling
from tasks.engines.config import EngineConfig, ModelConfig

long = [{"role": "user", "content": "word " * 300}]
asked = [ChatRequest(long, Sampling(max_tokens=64), seed) for seed in range(1024)]

async def run():
    config = EngineConfig(kind="in_process", max_concurrency=1024)
    async with open_engine(ModelConfig(path="starter"), config) as engine:
        await engine.generate(asked[0])
        free, _ = torch.cuda.mem_get_info()
        taken = torch.empty(max(0, free - (400 << 20)), dtype=torch.uint8, device="cuda")
        replies = await asyncio.gather(*map(engine.generate, asked))
        print(len(replies), min(reply.completion_tokens for reply in replies) > 0)

asyncio.run(run())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["1024", "True"], done.stderr[-2000:]
