"""What every side of the training benchmark is given: a model, rows as tokens and as text, and the same settings."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from envs.base import EnvConfig
from envs.math_env import MathEnv
from envs.sandbox import open_sandbox
from envs.sandbox.base import SandboxConfig

ROWS_AT_ONCE, BATCHES_A_STEP = 2, 8
SETTINGS = {"learning_rate": 1e-3, "num_train_epochs": 1, "lora_r": 64, "lora_alpha": 16}
SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""A head of a fifth of the body, as Qwen3-1.7B has it."""


def save_model(folder: Path) -> None:
    """Random weights, and the included policy's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from tasks.engines.model_files import STARTER_FOLDER

    tokenizer: Any = AutoTokenizer.from_pretrained(STARTER_FOLDER)
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    Qwen3ForCausalLM(Qwen3Config(**SHAPE, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_data(path: Path, num_rows: int) -> None:
    """First turns of math_env with right replies, and further turns that follow a wrong one: rows of uneven length."""
    config = EnvConfig(name="math_env", roles=("math_single_agent",))
    problems = MathEnv.problems(None, "train")[:num_rows]
    rows = []
    with closing(open_sandbox(SandboxConfig())) as sandbox:
        for index, problem in enumerate(problems):
            env = MathEnv(problem, config, sandbox)
            (ask,) = next(env.play())
            messages = [dict(message) for message in ask.messages]
            for _ in range(index % 4):
                messages += [
                    {"role": "assistant", "content": "I do not know this one, so I answer \\boxed{0}."},
                    {"role": "user", "content": "That is not right. Look at each number again, and try once more."},
                ]
            rows.append({"messages": [*messages, {"role": "assistant", "content": env.gold(ask)}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def token_rows(data: Path, model: Path) -> Any:
    """The rows as Winnow tokenises them."""
    import numpy as np
    from transformers import AutoTokenizer

    from tasks.training.config import TrainConfig
    from tasks.training.rows.token_data import token_data
    from tasks.training.rows.token_rows import TokenRows

    tokens = token_data([data], model, AutoTokenizer.from_pretrained(model), {}, TrainConfig())
    return TokenRows(tokens, [data], np.arange(len(tokens.rows)))


def write_token_files(rows: Any, folder: Path) -> None:
    """The same tokens as a data set that `trl sft` takes as it is."""
    from datasets import Dataset

    folder.mkdir()
    columns: dict[str, list[list[int]]] = {"input_ids": [], "completion_mask": []}
    for row in rows.read(range(len(rows))):
        columns["input_ids"].append(row.input_ids.tolist())
        columns["completion_mask"].append([int(at >= row.prompt_length) for at in range(len(row.input_ids))])
    Dataset.from_dict(columns).to_parquet(str(folder / "train.parquet"))
