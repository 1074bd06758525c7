"""How the model is fine-tuned. Imports nothing heavy: the command line shows it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """Fine-tuning on the kept turns, with the loss on the replies only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_path: str | list[str] | None = Field(
        None, description="A data file, a glob, or a list of them. Default: the newest file in collect.data_dir."
    )
    output_dir: Path | None = Field(None, description="Folder of the trained adapter. Default: ./sft_model_<env>.")
    num_gpus: int | None = Field(None, ge=0, description="GPUs to train on. Default: all that are visible; 0: the CPU.")
    num_train_epochs: float = Field(3, gt=0, le=1000, description="Passes over the data.")
    per_device_train_batch_size: int = Field(
        2, ge=1, le=4096, description="Rows that one device reads at once; halved by itself when GPU memory runs out."
    )
    gradient_accumulation_steps: int = Field(
        8,
        ge=1,
        le=4096,
        description="Batches per step: batch size x this x devices rows change the weights once.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Highest learning rate; it falls linearly to 0.")
    use_lora: bool = Field(True, description="Train a LoRA adapter; false trains and saves all weights.")
    lora_r: int = Field(64, ge=1, le=1024, description="Rank of the adapter's matrices.")
    lora_alpha: int = Field(
        16, ge=1, le=4096, description="Scale of the adapter: its effect counts lora_alpha / lora_r."
    )
    max_length: int = Field(
        4096,
        ge=8,
        description="Most tokens of a row, prompt and reply; longer rows are dropped, counted, never cut.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the adapter's first weights and of the order of rows.")
