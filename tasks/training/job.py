"""What the parent and the training process tell each other, all through files in one work folder.

`job.json` is written by `launch.py` and read by `sft.py`; `progress.jsonl` and `outcome.json` go the other way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from tasks.training.config import TrainConfig

JOB_FILE = "job.json"
LOG_FILE = "train.log"
PROGRESS_FILE = "progress.jsonl"
OUTCOME_FILE = "outcome.json"
CHECKPOINTS = "checkpoints"


class Job(BaseModel):
    """One run of the training process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[Path]
    """Data files, absolute."""
    model_folder: Path
    """The base model's files, absolute."""
    model_name: str
    """What the adapter's files call the base model: a hub name or an absolute folder."""
    trust_remote_code: bool
    chat_template_args: dict[str, JsonValue]
    """What the chat template is told when prompts are rendered, as it was in playing."""
    config: TrainConfig
    output_dir: Path
    work_dir: Path
    run_config: str
    """The resolved config of the whole run, as YAML; it is published beside the weights."""
    parent_pid: int
    """The process without which this one must not go on."""


class TrainProgress(BaseModel):
    """One update of the weights."""

    model_config = ConfigDict(frozen=True)

    step: int
    total_steps: int
    loss: float
    """Mean over the step's reply tokens, in nats."""
    learning_rate: float
    tokens: int
    """Tokens read since this process began, prompts included."""


class TrainCounts(BaseModel):
    """What a finished training did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    """Rows that were trained on, each num_train_epochs times."""
    dropped_overlong: int
    """Rows with more than train.max_length tokens."""
    trained_tokens: int
    """Reply tokens of those rows, end-of-turn tokens included: what the loss was on, counted once."""
    steps: int
    first_loss: float
    last_loss: float
    """Loss of the first and of the last step."""


class Outcome(BaseModel):
    """How the training process ended, where it could still say so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["done", "refused", "failed", "out_of_memory"]
    """refused: the user's data or config cannot be trained; failed: the result cannot be used."""
    message: str = ""
    counts: TrainCounts | None = None
