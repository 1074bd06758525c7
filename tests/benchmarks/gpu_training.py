"""Training on one GPU: tokens a second, model FLOPs utilisation and peak memory, beside TRL's SFTTrainer.

A model of the shape of Qwen3-1.7B with random weights in bf16, LoRA r=64 on all linear layers, gradient checkpointing,
16 rows in a step, of up to 4,096 tokens, the second half of each trained. Each case has a process of its own. The last
one asks for far more at once than there is memory for: it must halve that by itself and finish.

Needs a GPU, so `make bench` does not run it: PYTHONPATH=. python tests/benchmarks/gpu_training.py [--seconds N]

Utilisation = model FLOPs a second / peak. Model FLOPs are what the mathematics takes, without what is computed twice to
save memory: for each token 4 N + 6 A (N parameters of the layers, frozen: forward, and backward to the inputs; A of the
adapter), for each trained token 4 V d (the head), for each row of n tokens 6 n^2 h L (causal attention; h = heads x
head size, L layers). Padding counts as nothing. Peak: 989 TFLOP/s, dense bf16 of an H100 or H200.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PEAK_FLOPS = 989e12
LONGEST = 4096
ROWS_AT_ONCE, BATCHES_A_STEP = 2, 8
TOO_MANY_ROWS = 32
WARM_UP_STEPS = 2
NUM_ROWS = 1600
SHAPE = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CASES = {
    "Winnow, all rows 4,096": ("winnow", "full"),
    "TRL, all rows 4,096": ("trl", "full"),
    "Winnow packed, rows 256 to 4,096": ("winnow", "mixed"),
    "Winnow not packed, rows 256 to 4,096": ("winnow-padded", "mixed"),
    "TRL, rows 256 to 4,096": ("trl", "mixed"),
    "Winnow, 32 rows at once, nothing checkpointed": ("out-of-memory", "full"),
}


def row_lengths(kind: str) -> list[int]:
    if kind == "full":
        return [LONGEST] * NUM_ROWS
    lengths: list[int] = np.random.default_rng(0).integers(256, LONGEST + 1, NUM_ROWS).tolist()
    return lengths


def make_rows(kind: str) -> Any:
    """A dataset with the columns of both sides."""
    from datasets import Dataset

    lots = np.random.default_rng(1)
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "labels", "completion_mask", "prompt_length")}
    for length in row_lengths(kind):
        ids, prompt = lots.integers(3, 100_000, length), length // 2
        columns["input_ids"].append(ids.tolist())
        columns["labels"].append([-100] * prompt + ids[prompt:].tolist())
        columns["completion_mask"].append([0] * prompt + [1] * (length - prompt))
        columns["prompt_length"].append(prompt)
    columns["file"] = [0] * NUM_ROWS
    columns["number"] = list(range(1, NUM_ROWS + 1))
    return Dataset.from_dict(columns)


def save_model(folder: Path) -> None:
    """Random weights in bf16, with the included policy's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from tasks.engines.model_files import STARTER_FOLDER

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        Qwen3ForCausalLM(Qwen3Config(**SHAPE)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(STARTER_FOLDER).save_pretrained(folder)


def model_flops(model: Any, lengths: list[int]) -> float:
    """Of one pass over rows, half of whose tokens are trained."""
    trained = {name: p.numel() for name, p in model.named_parameters() if "lora_" in name}
    layers = sum(
        p.numel() for n, p in model.named_parameters() if ".layers." in n and p.dim() == 2 and n not in trained
    )
    width = SHAPE["num_attention_heads"] * SHAPE["head_dim"]
    head = SHAPE["vocab_size"] * SHAPE["hidden_size"]
    tokens = sum(lengths)
    return (
        tokens * (4.0 * layers + 6.0 * sum(trained.values()))
        + tokens / 2 * 4.0 * head
        + sum(6.0 * n * n * width * SHAPE["num_hidden_layers"] for n in lengths)
    )


def make_clock(limit_s: float) -> Any:
    """Measures steps after a warm-up, and ends the training when there are enough of them."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.began = time.perf_counter()
            self.steps = 0
            self.seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            if state.global_step <= WARM_UP_STEPS:
                self.began = now
                return
            self.steps, self.seconds = state.global_step - WARM_UP_STEPS, now - self.began
            if self.seconds >= limit_s:
                control.should_training_stop = True

    return Clock()


def winnow_trainer(rows: Any, clock: Any, work_dir: Path, folder: Path, side: str) -> tuple[Any, list[list[int]]]:
    """A trainer as a training has it, and the lengths of the rows of each of its steps."""
    from transformers import AutoTokenizer

    import tasks.training.steps.step_trainer as step_trainer
    from tasks.training.config import TrainConfig
    from tasks.training.job import Job
    from tasks.training.rows.token_data import RowCounts, TokenData
    from tasks.training.rows.token_rows import TokenRows
    from tasks.training.steps.packing import Layout
    from tasks.training.steps.trainer import make_trainer

    if side == "winnow-padded":
        step_trainer.use_packed_attention = lambda model: Layout.PADDED
    many = side == "out-of-memory"
    config = TrainConfig(
        num_train_epochs=1,
        per_device_train_batch_size=TOO_MANY_ROWS if many else ROWS_AT_ONCE,
        gradient_accumulation_steps=1 if many else BATCHES_A_STEP,
        max_length=LONGEST,
        gradient_checkpointing=False if many else None,
    )
    counts = RowCounts(duplicates=0, dropped_overlong=0, shortened=0, earlier_replies=0, samples=[])
    token_rows = TokenRows(TokenData(rows, counts), [Path("rows.jsonl")], np.arange(len(rows)))
    job = Job(
        data=[],
        model_folder=folder,
        model_name="random",
        trust_remote_code=False,
        chat_template_args={},
        config=config,
        output_dir=work_dir / "out",
        work_dir=work_dir,
        run_config="",
        parent_pid=0,
    )
    trainer: Any = make_trainer(job, AutoTokenizer.from_pretrained(folder), token_rows)
    trainer.add_callback(clock)
    print(f"  {trainer.layout.value}, attention: {trainer.model.config._attn_implementation}", flush=True)
    return trainer, [token_rows.lengths[trainer._plan.rows(step)].tolist() for step in range(len(trainer._plan))]


def trl_trainer(rows: Any, clock: Any, work_dir: Path, folder: Path) -> tuple[Any, list[list[int]]]:
    """TRL's trainer with its defaults, and where it notes the lengths of the rows of each step."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    seen: list[list[int]] = []

    class NotingTrainer(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            while len(seen) <= self.state.global_step:
                seen.append([])
            seen[self.state.global_step] += inputs["attention_mask"].sum(1).tolist()
            return super().training_step(model, inputs, num_items_in_batch)

    lora = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = SFTConfig(
        output_dir=str(work_dir),
        num_train_epochs=1,
        per_device_train_batch_size=ROWS_AT_ONCE,
        gradient_accumulation_steps=BATCHES_A_STEP,
        learning_rate=5e-5,
        max_length=LONGEST,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = NotingTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16),
        args=arguments,
        train_dataset=rows.select_columns(["input_ids", "labels", "completion_mask"]),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora,
        callbacks=[clock],
    )
    return trainer, seen


def run_case(side: str, kind: str, folder: Path, limit_s: float) -> None:
    """Train for a while and print a line."""
    import torch

    rows = make_rows(kind)
    clock = make_clock(0 if side == "out-of-memory" else limit_s)
    with tempfile.TemporaryDirectory() as work_dir:
        if side == "trl":
            trainer, steps = trl_trainer(rows, clock, Path(work_dir), folder)
        else:
            trainer, steps = winnow_trainer(rows, clock, Path(work_dir), folder, side)
        trainer.train()
    measured = [n for step in steps[WARM_UP_STEPS : WARM_UP_STEPS + clock.steps] for n in step]
    flops = model_flops(trainer.model, measured) / clock.seconds
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    print(
        f"  {sum(measured) / clock.seconds:,.0f} tokens/s, {flops / 1e12:,.1f} model TFLOP/s, utilisation "
        f"{flops / PEAK_FLOPS:.1%}, peak {peak:.1f} GiB; {clock.steps} steps in {clock.seconds:.1f} s, loss "
        f"{losses[0]:.3f} -> {losses[-1]:.3f}",
        flush=True,
    )
    if side == "out-of-memory":
        assert trainer.out_of_memory, "memory was enough for what was meant to be too much"
        print(f"  halved {len(trainer.out_of_memory)} times, to {trainer.most_tokens:,} tokens at once, and went on")


def main(limit_s: float) -> int:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        torch.cuda.empty_cache()
        for title, (side, kind) in CASES.items():
            began = time.perf_counter()
            print(title, flush=True)
            command = [sys.executable, __file__, "--case", side, kind, folder, "--seconds", str(limit_s)]
            environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
            try:
                code = subprocess.run(command, env=environment, timeout=180).returncode
            except subprocess.TimeoutExpired:
                code = -1
            failed += code != 0
            print(f"  exit code {code} after {time.perf_counter() - began:.0f} s in all", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12, help="for how long each case is measured")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        run_case(given.case[0], given.case[1], Path(given.case[2]), given.seconds)
    else:
        sys.exit(main(given.seconds))
