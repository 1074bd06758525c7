"""How the model is fine-tuned. Imports nothing heavy: the command line shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_WEIGHT = 1000
"""Of a data file: how often each of its rows is trained on in one pass; less than 1 is a share of the rows."""
Weight = Annotated[float, Field(gt=0, le=MAX_WEIGHT)]

ADAPTER_FORM = ("lora_r", "lora_alpha", "use_dora", "use_rslora")
"""Settings that `init_adapter` decides where they are not set."""


class TrainConfig(BaseModel):
    """Fine-tuning on the kept turns, with the loss on the replies only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_path: str | list[str] | dict[str, Weight] | None = Field(
        None,
        title="Data files",
        description='A data file, a glob, a list of them, or weights: \'{"a.jsonl": 2, "b*.parquet": 0.5}\' trains on '
        "each row of a.jsonl twice and on half of the others. Default: the newest file in collect.data_dir.",
    )
    output_dir: Path | None = Field(None, description="Folder of the trained adapter. Default: ./sft_model_<env>.")
    num_gpus: int | None = Field(
        None,
        ge=0,
        title="GPUs",
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
    use_lora: bool = Field(
        True, title="Use LoRA", description="Train a LoRA adapter; false trains and saves all weights."
    )
    lora_r: int = Field(64, ge=1, le=1024, title="LoRA rank", description="Rank of the adapter's matrices.")
    lora_alpha: int = Field(
        16,
        ge=1,
        le=4096,
        title="LoRA alpha",
        description="Scale of the adapter: its effect counts lora_alpha / lora_r.",
    )
    use_dora: bool = Field(
        False,
        title="Use DoRA",
        description="Train the length of each weight vector as well (DoRA): often better at small ranks, and slower. "
        "vLLM cannot serve such adapters; with train.merge it serves the merged model.",
    )
    use_rslora: bool = Field(
        False,
        title="Use rsLoRA",
        description="Let the effect count lora_alpha / sqrt(lora_r): large ranks then learn as fast as small ones.",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit: hold the base in 4 bits (QLoRA), a quarter of the memory of its weights."
    )
    init_adapter: Path | None = Field(
        None,
        description="Go on from the adapter in this folder, in its form, instead of beginning a new one; with several "
        "policies, from their folders in it. lora_r and the like that are set must be as in it.",
    )
    merge: bool = Field(
        False, description="Publish base + adapter as a whole model as well, in the folder merged beside the adapter."
    )
    max_length: int = Field(4096, ge=8, description="Most tokens of a row, prompt and reply.")
    on_overlong: Literal["drop", "error", "truncate"] = Field(
        "drop",
        title="Rows that are too long",
        description="What becomes of longer rows. drop: left out and counted; error: refused; truncate: the oldest "
        "messages of the prompt are left out, whole ones, never the system's, the last user's or any of the reply; "
        "what is still too long is dropped.",
    )
    checkpoint_every_min: float = Field(
        10,
        gt=0,
        title="Minutes between checkpoints",
        le=10_000,
        description="Minutes between checkpoints, at most: what a crash costs. There is one after each pass, too, and "
        "after each tenth of the steps, where writing them takes less than a twentieth of the time.",
    )
    keep_checkpoints: int = Field(2, ge=1, le=100, description="How many of the newest checkpoints are kept.")
    validation_share: float = Field(
        0,
        ge=0,
        le=0.5,
        description="Share of the problems whose rows are held back from training; the loss on them is measured before "
        "the first step, after each pass and after the last step.",
    )
    load_best_model_at_end: bool = Field(
        False,
        description="Publish the weights that had the least loss on the validation problems, not the last ones.",
    )
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field(
        [],
        title="Trackers",
        description="Where losses are shown beside train_log.jsonl. tensorboard: files in <output_dir>-tensorboard; "
        "trackio: on this machine, unless TRACKIO_SPACE_ID is set; wandb: sent where WANDB_API_KEY is set, else kept "
        "in ./wandb.",
    )
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
            given = _parsed_weights(given) if given.lstrip().startswith("{") else _names(given)
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

    @property
    def unset_form(self) -> set[str]:
        """What of an adapter's form is left to `init_adapter`."""
        return set(ADAPTER_FORM) - self.model_fields_set

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.use_lora:
            for key, is_set in (
                ("use_dora", self.use_dora),
                ("use_rslora", self.use_rslora),
                ("quantization", self.quantization != "none"),
                ("init_adapter", self.init_adapter is not None),
                ("merge", self.merge),
            ):
                if is_set:
                    raise ValueError(
                        f"train.{key}: it is for adapters, and train.use_lora is false; leave one of the two out"
                    )
        if self.load_best_model_at_end and not self.validation_share:
            raise ValueError(
                "train.load_best_model_at_end: the best is that on validation problems, and there are none; pass "
                "--train.validation_share 0.1, or leave it out"
            )
        return self

    def weight(self, path: Path) -> float:
        """How often each row of a file is trained on in one pass, where `data_path` names it."""
        return self.data_path.get(str(path), 1.0) if isinstance(self.data_path, dict) else 1.0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _parsed_weights(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"train.data_path: found {text}, which is not JSON ({error.msg} at column {error.colno}); "
            """wanted weights such as '{"a.jsonl": 2, "b.jsonl": 0.5}'"""
        ) from None
