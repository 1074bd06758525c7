"""The starter policy: a model small enough to be part of the repository, so that everything runs without a hub.

`python -m tasks.training.starter` makes it anew: it plays the built-in *starter* problems with a teacher who knows the
answers and now and then gives a wrong one, so that every kind of prompt comes up that the roles meet in play, trains a
Qwen3-architecture model to give the right replies, and stops while the model is still mediocre. Problems that are
collected from (`train`) or measured on (`heldout`) are never seen; when to stop is decided on starter problems that are
set aside. The run is seeded; its length depends on the machine, its data and order do not.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from envs import load_env_class
from envs.base import Env, EnvConfig, Message, Problem
from envs.problems.stateful_problems import StatefulProblem, drawn_problems
from envs.sandbox import open_sandbox
from envs.sandbox.base import Sandbox, SandboxConfig
from tasks.engines.chat_tokens import encode, prompt_token_ids
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.in_process.engine import InProcessEngine
from tasks.rollout.config import CollectConfig
from tasks.rollout.plan import make_plan
from tasks.rollout.play import play_episode

FOLDER = Path(__file__).with_name("starter_policy")
SEATINGS = {
    "math_env": (("math_single_agent",), ("reasoning_generator", "tool_generator")),
    "code_env": (("code_single_agent",), ("code_generator", "test_generator")),
    "search_env": (("search_single_agent",), ("search_reasoning_agent", "web_search_agent")),
    "stateful_env": (("stateful_single_agent",), ("plan_agent", "tool_call_agent")),
}
ONE_IN = {"tool_generator": 4, "test_generator": 2, "tool_call_agent": 8}
"""Roles that are learnt sooner than others see every n-th problem only."""
RIGHT = {"search_env": 1.0}
"""How often the teacher is right, where it is not `USUALLY_RIGHT`: who searched for the wrong thing can say nothing."""
USUALLY_RIGHT = 0.4
LATER = {"search_env": 10, "stateful_env": 4}
"""Envs whose later turns are the harder part play them on this many times as many problems."""
DRAWN_PUZZLES = 24_000
"""Problems of stateful_env that are drawn besides the built-in ones: the same puzzles, turned, mirrored or renamed."""
VOCABULARY = 1024
LEARNING_RATE = 3e-3
"""At its peak."""
LEAST_SHARE = 0.1
"""An env that has reached its target is given this part of what one at zero is given, so that it is not forgotten."""
TOO_GOOD = 0.6
"""Above this rate it is given nothing for a while: something is to be left to learn."""
BATCH_SIZE = 32
SET_ASIDE = 64
"""Starter problems of each env that are not trained on, to decide when to stop."""

END_OF_TURN = "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}" + END_OF_TURN + "\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Example:
    """A prompt as a role meets it in play, and the reply of a player who knows the answer."""

    env_name: str
    problem_hash: str
    messages: list[Message]
    reply: str


def first_turn_examples(env_name: str, problems: Sequence[Problem], sandbox: Sandbox) -> Iterator[Example]:
    """What roles are asked first. Nothing is run for it. What several are asked in the same words comes once."""
    for index, problem in enumerate(problems):
        asked = []
        for roles in SEATINGS[env_name]:
            env = _open_env(env_name, roles, problem, sandbox)
            for ask in next(env.play()):
                if index % ONE_IN.get(ask.role, 1) == 0 and ask.messages not in asked:
                    asked.append(ask.messages)
                    yield Example(env_name, problem.hash, ask.messages, env.gold(ask))


def later_turn_examples(
    env_name: str, problems: Sequence[Problem], sandbox: Sandbox, rng: random.Random
) -> Iterator[Example]:
    """What roles are asked after a wrong reply: whole episodes, other problems' right replies being the wrong ones."""
    jobs = [(roles, p, random.Random(rng.random())) for roles in SEATINGS[env_name] for p in problems]
    with ThreadPoolExecutor(2) as pool:
        for examples in pool.map(lambda job: _later_turns(env_name, job[0], job[1], problems, sandbox, job[2]), jobs):
            yield from examples


def _later_turns(
    env_name: str,
    roles: tuple[str, ...],
    problem: Problem,
    others: Sequence[Problem],
    sandbox: Sandbox,
    rng: random.Random,
) -> list[Example]:
    env = _open_env(env_name, roles, problem, sandbox)
    right = RIGHT.get(env_name, USUALLY_RIGHT)
    similar = [p for p in rng.sample(others, min(40, len(others))) if _form(p) == _form(problem)]
    examples = []
    play = env.play()
    asks = next(play)
    try:
        while True:
            replies = [
                env.gold(ask)
                if rng.random() < right or not similar
                else _open_env(env_name, roles, rng.choice(similar), sandbox).gold(ask)
                for ask in asks
            ]
            asks = play.send(replies)
            examples += [Example(env_name, problem.hash, ask.messages, env.gold(ask)) for ask in asks]
    except StopIteration:
        return examples


def _form(problem: Problem) -> Any:
    """Problems of one form take each other's replies: whole programs, functions of one name, puzzles of one world."""
    return problem.world.name if isinstance(problem, StatefulProblem) else getattr(problem, "function", None)


def _open_env(env_name: str, roles: tuple[str, ...], problem: Problem, sandbox: Sandbox) -> Env:
    return load_env_class(env_name)(problem, EnvConfig(name=env_name, roles=roles), sandbox)


def train_tokenizer(examples: Sequence[Example]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one token a digit, as arithmetic needs it, and a Qwen-style chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", END_OF_TURN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for e in examples for text in (e.messages[-1]["content"], e.reply, "user\nassistant\nsystem\n"))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained Qwen3 of about 1.8 M parameters."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]


def new_optimizers(model: Qwen3ForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon (https://kellerjordan.github.io/posts/muon) for the matrices, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05),
    ]


@dataclass(frozen=True)
class Row:
    """An example as token ids; `start` is where the reply begins, which alone is trained on."""

    env_name: str
    ids: list[int]
    start: int


def tokenise(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Row]:
    rows = []
    for example in examples:
        prompt = prompt_token_ids(tokenizer, example.messages, {})
        reply = encode(tokenizer, example.reply + END_OF_TURN)
        rows.append(Row(example.env_name, prompt + reply, len(prompt)))
    return rows


def batches(rows: Sequence[Row], size: int, rng: random.Random) -> Iterator[list[Row]]:
    """Full batches of rows of similar length, in random order."""
    shuffled = rng.sample(rows, len(rows))
    for i in range(0, len(shuffled) - size * 16 + 1, size * 16):
        chunk = sorted(shuffled[i : i + size * 16], key=lambda row: len(row.ids))
        parts = [chunk[j : j + size] for j in range(0, len(chunk), size)]
        yield from rng.sample(parts, len(parts))


def loss_of(model: Qwen3ForCausalLM, batch: Sequence[Row]) -> torch.Tensor:
    """Mean cross-entropy of the reply tokens, the end of the turn included."""
    longest = max(len(row.ids) for row in batch)
    pad = model.config.pad_token_id or 0
    ids = torch.tensor([row.ids + [pad] * (longest - len(row.ids)) for row in batch])
    trained = torch.zeros_like(ids, dtype=torch.bool)
    for index, row in enumerate(batch):
        trained[index, row.start : len(row.ids)] = True
    # Rows are padded on the right, so causal attention alone keeps padding out of every real token's view.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][trained[:, 1:]]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), ids[:, 1:][trained[:, 1:]])


def success_rates(folder: Path, problems: dict[str, Sequence[Problem]], sandbox: Sandbox) -> dict[str, float]:
    """Share of the problems that the model in `folder` solves at temperature 1, per env and set of roles."""

    async def play_all() -> dict[str, float]:
        engine = InProcessEngine(ModelConfig(path=str(folder)), EngineConfig(max_concurrency=128), {})
        rates = {}
        async with engine:
            for env_name, chosen in problems.items():
                slots = make_plan(chosen, len(chosen), 1)
                for roles in SEATINGS[env_name]:
                    config = EnvConfig(name=env_name, roles=roles)
                    collect = CollectConfig(max_tokens=160)
                    plays = [
                        play_episode(slot, load_env_class(env_name), config, sandbox, engine, collect) for slot in slots
                    ]
                    episodes = await asyncio.gather(*plays)
                    rates[f"{env_name} [{' + '.join(roles)}]"] = sum(e.success for e in episodes) / len(episodes)
        return rates

    return asyncio.run(play_all())


def gather_examples(
    rng: random.Random, sandbox: Sandbox, later: int, drawn: int = DRAWN_PUZZLES
) -> tuple[list[Example], dict[str, Sequence[Problem]]]:
    """All examples, and the problems set aside, per env.

    Args:
        later: problems of each env whose later turns are played.
        drawn: puzzles that are drawn besides the built-in ones.
    """
    examples: list[Example] = []
    aside: dict[str, Sequence[Problem]] = {}
    for env_name in SEATINGS:
        problems = load_env_class(env_name).problems(None, "starter")
        aside[env_name], used = problems[:SET_ASIDE], problems[SET_ASIDE:]
        if env_name == "stateful_env":
            used = [*used, *_drawn_puzzles(drawn, aside[env_name], rng)]
        examples += first_turn_examples(env_name, used, sandbox)
        examples += later_turn_examples(env_name, used[: later * LATER.get(env_name, 1)], sandbox, rng)
    return examples, aside


def _drawn_puzzles(count: int, aside: Sequence[Problem], rng: random.Random) -> list[StatefulProblem]:
    """More puzzles, none of which is one that is set aside."""
    hashes = {problem.hash for problem in aside}
    drawn = itertools.islice(drawn_problems("starter", rng.getrandbits(32)), count)
    return [problem for problem in drawn if problem.hash not in hashes]


def train_starter(
    out: Path,
    start: Path | None,
    seed: int,
    learning_rate: float,
    target: float,
    max_minutes: float,
    later: int,
    rows_between_checks: int,
) -> None:
    """Train until every env is between `target` and `TOO_GOOD` on the problems set aside, or time is up.

    It saves at each check.

    `start`: a folder with the weights of an earlier run to go on from; None begins with random ones.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    sandbox = open_sandbox(SandboxConfig())
    examples, aside = gather_examples(rng, sandbox, later)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start) if start else train_tokenizer(examples)
    rows = tokenise(tokenizer, examples)
    model = Qwen3ForCausalLM.from_pretrained(start, dtype=torch.float32) if start else new_model(tokenizer)
    print(
        f"{len(rows):,} examples, {sum(len(row.ids) for row in rows):,} tokens, {model.num_parameters():,} parameters"
    )
    optimizers = new_optimizers(model, learning_rate)
    began, step = time.monotonic(), 0
    rates = by_env(success_rates(start, aside, sandbox)) if start else dict.fromkeys(SEATINGS, 0.0)
    while (
        not all(target <= rate <= TOO_GOOD for rate in rates.values()) and time.monotonic() - began < 60 * max_minutes
    ):
        for batch in batches(mixed(rows, rows_between_checks, rates, target, rng), BATCH_SIZE, rng):
            step += 1
            learn(model, optimizers, batch, learning_rate * min(1.0, step / 100) / max(1.0, step / 1500) ** 0.5)
        save(model, tokenizer, out)
        found = success_rates(out, aside, sandbox)
        shown = json.dumps({name: round(rate, 3) for name, rate in found.items()})
        print(f"step {step}, {(time.monotonic() - began) / 60:.1f} min: {shown}", flush=True)
        rates = by_env(found)


def learn(
    model: Qwen3ForCausalLM, optimizers: Sequence[torch.optim.Optimizer], batch: Sequence[Row], learning_rate: float
) -> None:
    """One step."""
    loss_of(model, batch).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()


def by_env(rates: Mapping[str, float]) -> dict[str, float]:
    """The mean rate of each env's seatings."""
    found = {name: [rate for key, rate in rates.items() if key.startswith(name)] for name in SEATINGS}
    return {name: sum(of_env) / len(of_env) for name, of_env in found.items()}


def mixed(rows: Sequence[Row], count: int, rates: Mapping[str, float], target: float, rng: random.Random) -> list[Row]:
    """`count` rows; each env has a share in proportion to how far it is from its target."""
    lacks = {name: max(target - rate, LEAST_SHARE * target) * (rate < TOO_GOOD) for name, rate in rates.items()}
    chosen = []
    for name, lack in lacks.items():
        of_env = [row for row in rows if row.env_name == name]
        chosen += rng.choices(of_env, k=round(count * lack / sum(lacks.values())))
    return chosen


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the policy's folder, its weights in bfloat16."""
    smaller = copy.deepcopy(model)
    smaller.bfloat16()
    smaller.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(folder: Path, count: int) -> dict[str, float]:
    """Success at temperature 1 on held-out problems, for the model card."""
    problems = {name: load_env_class(name).problems(None, "heldout")[:count] for name in SEATINGS}
    return success_rates(folder, problems, open_sandbox(SandboxConfig()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the starter policy on the built-in starter problems.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: the one that is used)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.35, help="stop once every env reaches this success rate")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="at its peak")
    parser.add_argument("--max-minutes", type=float, default=40)
    parser.add_argument("--start", type=Path, help="go on from the weights in this folder")
    parser.add_argument("--later", type=int, default=400, help="problems of each env whose later turns are played")
    parser.add_argument("--check-every", type=int, default=20_000, metavar="ROWS", help="rows between two checks")
    parser.add_argument(
        "--measure", type=int, metavar="N", help="only measure --out on N held-out problems of each env"
    )
    args = parser.parse_args()
    if args.measure is None:
        train_starter(
            args.out,
            args.start,
            args.seed,
            args.learning_rate,
            args.target,
            args.max_minutes,
            args.later,
            args.check_every,
        )
    print(json.dumps(measure(args.out, args.measure or 400), indent=2))


if __name__ == "__main__":
    main()
