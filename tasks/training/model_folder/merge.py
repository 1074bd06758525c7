"""An adapter added to its base model for good: a folder that everything loads that loads whole models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasks.engines.model_files import GENERATION_CONFIG
from tasks.training.job import Job
from tasks.training.model_folder.proof import UnusableWeightsError


def write_merged(adapter: Path, job: Job, tokenizer: Any, folder: Path) -> None:
    """Write base + adapter as a whole model, in the precision of the base's files, computed on the CPU.

    A base that was quantized for training is merged as it was before.

    Raises:
        UnusableWeightsError: a sum is not finite.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    base = AutoModelForCausalLM.from_pretrained(job.model_folder, dtype="auto", trust_remote_code=job.trust_remote_code)
    adapted: Any = PeftModel.from_pretrained(base, str(adapter))
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # weights that are not finite
        raise UnusableWeightsError(
            f"the adapter cannot be merged: {error}; nothing was published. Lower train.learning_rate."
        ) from error
    merged.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    merged.save_pretrained(folder)
    copy_generation_config(job, folder)
    tokenizer.save_pretrained(folder)


def copy_generation_config(job: Job, folder: Path) -> bool:
    """Have a whole model's folder say how it is sampled from, and what ends a reply, in the base's own words. Returns
    whether the base says so.
    """
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    its = job.model_folder / GENERATION_CONFIG
    if its.is_file():
        shutil.copyfile(its, folder / GENERATION_CONFIG)
    return its.is_file()
