"""Tokens a second of the in-process engine, against transformers' generate on static batches of the same prompts.

Only tokens of replies count, for both. generate gets its prompts sorted by length, and the batch size that suits it
best. Requests are those of math_env to the included policy; episodes have one to four, each with a longer prompt.

Run by `make bench`, or: python tests/benchmarks/bench_in_process.py [--rounds N] [--prompts N] [--gpu]. Exits with 1 if
a target is missed. --gpu: a model of the shape of Qwen3-1.7B with random weights, whose replies are all as long.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from envs.base import EnvConfig, Message
from envs.math_env import MathEnv
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig
from tasks.engines import open_engine  # before torch, which reads the environment when it is imported
from tasks.engines.base import ChatRequest, Completion, Engine, Sampling
from tasks.engines.chat_tokens import prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import STARTER_FOLDER

import torch  # isort: skip

STATIC_ROWS = (64, 128, 256)
LEVELS = (64, 128, 256)
IN_FLIGHT = 1000
MOST_TURNS = 4
GPU_RESPONSE_TOKENS = 128


@dataclass
class Way:
    """`run` gives how many tokens it made."""

    name: str
    run: Callable[[], int]
    rates: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    """Memory above that before the run, at most."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class PeakMemory:
    """Watches what this process, or its GPU, holds, in MiB above the beginning."""

    def __enter__(self) -> PeakMemory:
        self._begin = self._peak = self._now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
        self.mib = (self._peak - self._begin) / 2**20

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        if torch.cuda.is_available():
            return torch.cuda.memory_allocated()
        return psutil.Process().memory_info().rss


def first_chats(num: int) -> list[list[Message]]:
    """What math_env asks first, of `num` problems."""
    config = EnvConfig(name="math_env", roles=("math_single_agent",))
    with closing(open_sandbox(SandboxConfig())) as sandbox:
        games = [MathEnv(problem, config, sandbox).play() for problem in MathEnv.problems(None, "train")[:num]]
        return [list(next(game)[0].messages) for game in games]


async def play_all(engine: Engine, chats: Sequence[list[Message]], sampling: Sampling, at_once: int) -> int:
    """One request for each chat."""
    free = asyncio.Semaphore(at_once)

    async def ask(seed: int, chat: list[Message]) -> int:
        async with free:
            return (await engine.generate(ChatRequest(chat, sampling, seed))).completion_tokens

    return sum(await asyncio.gather(*(ask(seed, chat) for seed, chat in enumerate(chats))))


async def play_episodes(
    engine: Engine, chats: Sequence[list[Message]], sampling: Sampling, at_once: int
) -> list[Completion]:
    """Episodes of one to four turns, in which each turn is told to try again."""
    free = asyncio.Semaphore(at_once)
    completions: list[Completion] = []

    async def play(idx: int, chat: list[Message]) -> None:
        async with free:
            for turn in range(1 + idx % MOST_TURNS):
                reply = await engine.generate(ChatRequest(chat, sampling, MOST_TURNS * idx + turn))
                completions.append(reply)
                again: Message = {"role": "user", "content": "That is not right. Try again."}
                chat = [*chat, {"role": "assistant", "content": reply.text}, again]

    await asyncio.gather(*(play(idx, chat) for idx, chat in enumerate(chats)))
    return completions


def generate_all(model: Any, prompts: Sequence[list[int]], max_tokens: int, rows: int) -> int:
    """Tokens of replies, with `transformers.generate` on batches of `rows` prompts of similar length."""
    ordered = sorted(prompts, key=len)
    stop = torch.tensor(model.generation_config.eos_token_id, device=model.device).flatten()
    num_tokens = 0
    for begin in range(0, len(ordered), rows):
        part = ordered[begin : begin + rows]
        columns = max(map(len, part))
        ids = torch.tensor([[0] * (columns - len(ids)) + ids for ids in part], device=model.device)
        mask = torch.tensor([[0] * (columns - len(ids)) + [1] * len(ids) for ids in part], device=model.device)
        sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, **sampling)
        is_stop = torch.isin(output[:, columns:], stop).int()
        num_tokens += int((is_stop.cumsum(1) - is_stop == 0).sum())
    return num_tokens


def make_gpu_model(folder: Path) -> None:
    """A model of the shape of Qwen3-1.7B with random weights, and the included policy's tokenizer."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(STARTER_FOLDER)
    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("cuda"):
        Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_ways(engine: Engine, folder: Path, num_prompts: int, max_tokens: int, loop: asyncio.Runner) -> list[Way]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats, sampling = first_chats(num_prompts), Sampling(max_tokens=max_tokens)
    prompts = [prompt_token_ids(tokenizer, chat, {}) for chat in chats]
    episodes = chats[: num_prompts // 2]
    replies = loop.run(play_episodes(engine, episodes, sampling, LEVELS[1]))
    all_prompts = [list(reply.prompt_ids or []) for reply in replies]
    ways = []
    for rows in STATIC_ROWS:
        ways.append(Way(f"generate, {rows} rows", lambda n=rows: generate_all(model, prompts, max_tokens, n)))
        ways.append(
            Way(
                f"generate on episodes' prompts, {rows} rows",
                lambda n=rows: generate_all(model, all_prompts, max_tokens, n),
            )
        )
    for level in (*LEVELS, IN_FLIGHT):
        ways.append(Way(f"engine, {level} in flight", lambda n=level: loop.run(play_all(engine, chats, sampling, n))))
    for level in LEVELS:
        ways.append(
            Way(
                f"engine on episodes, {level} in flight",
                lambda n=level: sum(
                    reply.completion_tokens for reply in loop.run(play_episodes(engine, episodes, sampling, n))
                ),
            )
        )
    return ways


def measure(console: Console, ways: Sequence[Way], num_rounds: int) -> None:
    """Each round another way is first."""
    for turn in range(num_rounds):
        first = turn * 5 % len(ways)
        for way in (*ways[first:], *ways[:first]):
            with PeakMemory() as memory:
                began = time.perf_counter()
                num_tokens = way.run()
                way.rates.append(num_tokens / (time.perf_counter() - began))
            console.print(f"{way.name}: {way.rates[-1]:,.0f} tokens/s")
            way.peak_mib = max(way.peak_mib, memory.mib)


def best(ways: Sequence[Way], beginning: str) -> Way:
    return max((way for way in ways if way.name.startswith(beginning)), key=lambda way: way.rate)


def ratio(mine: Way, other: Way) -> float:
    """Of their rates, by the median of the rounds: what slows the machine slows both."""
    return statistics.median(a / b for a, b in zip(mine.rates, other.rates, strict=True))


def show_rates(console: Console, ways: Sequence[Way], num_rounds: int) -> None:
    table = Table(title=f"tokens of replies a second, {num_rounds} rounds in turns")
    for column in ("", "median", "worst", "best", "peak memory, MiB above before"):
        table.add_column(column, justify="right" if column else "left")
    for way in sorted(ways, key=lambda way: way.name):
        rates = (way.rate, min(way.rates), max(way.rates))
        table.add_row(way.name, *(f"{rate:,.0f}" for rate in rates), f"{way.peak_mib:,.0f}")
    console.print(table)


def show_targets(console: Console, ways: Sequence[Way]) -> bool:
    """Whether all are met."""
    engine = best([way for way in ways if f"{IN_FLIGHT} in" not in way.name], "engine, ")
    many = best([way for way in ways if f"{IN_FLIGHT} in" in way.name], "engine, ")
    found = {
        "one request each, times generate's best": (ratio(engine, best(ways, "generate, ")), 0.9),
        "episodes of 1 to 4 turns, times generate's best": (
            ratio(best(ways, "engine on"), best(ways, "generate on")),
            0.75,
        ),
        f"{IN_FLIGHT} in flight, times the best level": (ratio(many, engine), 0.9),
    }
    table = Table(title="targets")
    for column in ("", "wanted", "found", "verdict"):
        table.add_column(column, justify="right" if column else "left")
    for text, (value, bound) in found.items():
        verdict = "[green]met[/]" if value >= bound else "[red]MISSED[/]"
        table.add_row(text, f">= {bound:g}", f"{value:.2f}", verdict)
    console.print(table)
    return all(value >= bound for value, bound in found.values())


def main(num_rounds: int, num_prompts: int, is_gpu: bool) -> int:
    console = Console(width=110)
    if is_gpu and not torch.cuda.is_available():
        console.print("--gpu: torch finds no CUDA device here; run it without, or on a machine with a GPU")
        return 1
    with ExitStack() as stack:
        folder, max_tokens = STARTER_FOLDER, 96
        if is_gpu:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            max_tokens = GPU_RESPONSE_TOKENS
            make_gpu_model(folder)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
        console.print(f"{device}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
        loop = stack.enter_context(asyncio.Runner())
        engine = open_engine(
            ModelConfig(path=str(folder)), EngineConfig(kind="in_process", max_concurrency=2 * IN_FLIGHT)
        )
        loop.run(engine.start())
        stack.callback(lambda: loop.run(engine.stop()))
        ways = make_ways(engine, folder, num_prompts, max_tokens, loop)
        measure(console, ways, num_rounds)
    show_rates(console, ways, num_rounds)
    return 0 if show_targets(console, ways) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--prompts", type=int, default=1024, help="prompts; half as many episodes")
    parser.add_argument("--gpu", action="store_true", help="a model of the shape of Qwen3-1.7B, with random weights")
    given = parser.parse_args()
    sys.exit(main(given.rounds, given.prompts, given.gpu))
