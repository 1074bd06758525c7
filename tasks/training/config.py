"""How the model is fine-tuned. Imports nothing heavy: the command line shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_WEIGHT = 1000
"""Of a data file: how often each of its rows is trained on in one pass; less than 1 is a share of the rows."""


class TrainConfig(BaseModel):
    """Fine-tuning on the kept turns, with the loss on the replies only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_path: str | list[str] | dict[str, float] | None = Field(
        None,
        description='A data file, a glob, a list of them, or weights: \'{"a.jsonl": 2, "b*.parquet": 0.5}\' trains on '
        "each row of a.jsonl twice and on half of the others. Default: the newest file in collect.data_dir.",
    )
    output_dir: Path | None = Field(None, description="Folder of the trained adapter. Default: ./sft_model_<env>.")
    num_gpus: int | None = Field(
        None,
        ge=0,
        description="GPUs to train on. They share the rows of a step: how many there are changes the time, not the "
        "result. Default: all that are visible; 0: the CPU.",
    )
    accelerate_config: Path | None = Field(
        None,
        description="A file as `accelerate config` writes it, for FSDP2, DeepSpeed or several processes on the CPU. "
        "Default: DDP on each GPU.",
    )
    num_train_epochs: float = Field(3, gt=0, le=1000, description="Passes over the data.")
    per_device_train_batch_size: int = Field(
        2,
        ge=1,
        le=4096,
        description="Rows of the greatest length that one device reads at once, or as many tokens in shorter ones; "
        "halved by itself when GPU memory runs out.",
    )
    gradient_accumulation_steps: int = Field(
        8,
        ge=1,
        le=4096,
        description="Batches per step: batch size x this rows change the weights once, whatever the number of devices.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Highest learning rate; it falls linearly to 0.")
    use_lora: bool = Field(True, description="Train a LoRA adapter; false trains and saves all weights.")
    lora_r: int = Field(64, ge=1, le=1024, description="Rank of the adapter's matrices.")
    lora_alpha: int = Field(
        16, ge=1, le=4096, description="Scale of the adapter: its effect counts lora_alpha / lora_r."
    )
    max_length: int = Field(4096, ge=8, description="Most tokens of a row, prompt and reply.")
    on_overlong: Literal["drop", "error", "truncate"] = Field(
        "drop",
        description="What becomes of longer rows. drop: left out and counted; error: refused; truncate: the oldest "
        "messages of the prompt are left out, whole ones, never the system's, the last user's or any of the reply; "
        "what is still too long is dropped.",
    )
    checkpoint_every_min: float = Field(
        10,
        gt=0,
        le=10_000,
        description="Minutes between checkpoints, at most: what a crash costs. There is one after each pass, too, and "
        "after each tenth of the steps, where writing them takes less than a twentieth of the time.",
    )
    keep_checkpoints: int = Field(2, ge=1, le=100, description="How many of the newest checkpoints are kept.")
    dry_run: bool = Field(
        False, description="For flows.train_only: show what would be trained, in how many steps, and train nothing."
    )
    gradient_checkpointing: bool | None = Field(
        None,
        description="Compute activations twice instead of keeping them: less memory, and about a third more time. "
        "Default: on a GPU, and not on the CPU.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the adapter's first weights and of the order of rows.")

    @field_validator("data_path", mode="before")
    @classmethod
    def _read_names_and_weights(cls, given: Any) -> Any:
        """The command line gives a text: a name, names with commas between them, or weights as JSON."""
        if isinstance(given, str):
            given = _parsed_weights(given) if given.lstrip().startswith("{") else given.split(",")
            given = given[0] if isinstance(given, list) and len(given) == 1 else given
        for name, weight in given.items() if isinstance(given, dict) else ():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
                raise ValueError(
                    f"train.data_path: found the weight {weight!r} of {name}; wanted a number above 0 and at most "
                    f"{MAX_WEIGHT}; leave the file out if it is not to be trained on"
                )
        return given

    @property
    def rows_per_step(self) -> int:
        """Rows that change the weights once, on all devices together."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def weight(self, path: Path) -> float:
        """How often each row of a file is trained on in one pass, where `data_path` names it."""
        return self.data_path.get(str(path), 1.0) if isinstance(self.data_path, dict) else 1.0


def _parsed_weights(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"train.data_path: found {text}, which is not JSON ({error.msg} at column {error.colno}); "
            """wanted weights such as '{"a.jsonl": 2, "b.jsonl": 0.5}'"""
        ) from None
