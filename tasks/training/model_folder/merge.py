"""An adapter added to its base model for good: a folder that everything loads that loads whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.training.job import Job
from tasks.training.model_folder.proof import UnusableWeightsError


def write_merged(adapter: Path, job: Job, tokenizer: Any, folder: Path) -> None:
    """Write base + adapter as a whole model, in the precision of the base's files, computed on the CPU.

    A base that was quantized for training is merged as it was before.

    Raises:
        UnusableWeightsError: a sum is not finite.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(job.model_folder, dtype="auto", trust_remote_code=job.trust_remote_code)
    adapted: Any = PeftModel.from_pretrained(base, str(adapter))
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # weights that are not finite
        raise UnusableWeightsError(
            f"the adapter cannot be merged: {error}; nothing was published. Lower train.learning_rate."
        ) from error
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
