"""The model folder: proven, then published with exactly the files that it promises.

With LoRA: config.json adapter_config.json adapter_model.safetensors tokenizer_config.json special_tokens_map.json
tokenizer.json training_args.bin; with a full fine-tune model.safetensors instead of the two adapter files, and
generation_config.json if the base has one. Beside them README.md (the card), loss_curve.png, train_log.jsonl and
run_config.yaml and, where it is asked for, the folder merged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.engines.model_files import ADAPTER_WEIGHTS, GENERATION_CONFIG
from tasks.rollout.artifact import CARD_NAME, publish_folder
from tasks.training.gate.audit import Audit
from tasks.training.job import LOSS_CURVE, MERGED, TRAIN_LOG, Job, TrainCounts
from tasks.training.model_folder.card import card
from tasks.training.model_folder.merge import copy_generation_config, write_merged
from tasks.training.model_folder.proof import MODEL_WEIGHTS, prove
from tasks.training.progress.curve import draw_loss
from tasks.training.progress.log import Entry, write_log

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
RUN_FILES = ("training_args.bin", LOSS_CURVE, TRAIN_LOG, "run_config.yaml", CARD_NAME)
LORA_FILES = ("config.json", "adapter_config.json", ADAPTER_WEIGHTS, *TOKENIZER_FILES, *RUN_FILES)
FULL_FILES = ("config.json", MODEL_WEIGHTS, *TOKENIZER_FILES, *RUN_FILES)
_SCRATCH = "publishing"
"""A folder in the work folder."""


def publish_model(
    job: Job,
    model: Any,
    tokenizer: Any,
    training_args: Any,
    found: Audit,
    counts: TrainCounts,
    log: Sequence[Entry],
) -> None:
    """Write the model folder at `job.output_dir`, whole or not at all.

    Raises:
        UnusableWeightsError: weights are NaN or infinite, or nothing has changed; see `prove`.
    """
    files = list(LORA_FILES if job.config.use_lora else FULL_FILES)
    scratch = job.work_dir / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # what a kill has left would take the room of the next one
    scratch.mkdir()
    with publish_folder(job.output_dir) as folder:
        _save_weights(model, scratch, job)
        effect = prove(scratch, job)
        if job.config.merge:
            write_merged(scratch, job, tokenizer, scratch / MERGED)
            files.append(MERGED)
        if not job.config.use_lora and copy_generation_config(job, scratch):
            files.append(GENERATION_CONFIG)
        _save_tokenizer(tokenizer, scratch)
        torch.save(training_args, scratch / "training_args.bin")
        write_log(log, scratch / TRAIN_LOG)
        draw_loss(log, scratch / LOSS_CURVE, _step_of_the_best(counts))
        (scratch / "run_config.yaml").write_text(job.run_config, encoding="utf-8")
        (scratch / CARD_NAME).write_text(card(job, found, counts, effect), encoding="utf-8")
        for name in files:  # the libraries write more (templates, other cards), and other things in other versions
            shutil.move(scratch / name, folder / name)
    shutil.rmtree(scratch)


def _step_of_the_best(counts: TrainCounts) -> int | None:
    """After which step the published weights were had, if it is not the last one."""
    losses = counts.validation
    return losses.published.step if losses and losses.published.step != losses.last.step else None


def _save_weights(model: Any, folder: Path, job: Job) -> None:
    model.config.save_pretrained(folder)
    if not job.config.use_lora:
        model.save_pretrained(folder, max_shard_size="1000TB")
        return
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # Not the folder of the hub's local cache that it was loaded from.
    path.write_text(json.dumps({**config, "base_model_name_or_path": job.model_name}, indent=2, sort_keys=True))


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """With the chat template inside tokenizer_config.json, where every reader finds it."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    (folder / "special_tokens_map.json").write_text(json.dumps(tokenizer.special_tokens_map, indent=2))
