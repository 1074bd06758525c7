"""What the parent and the training process tell each other, all through files in one work folder.

`job.json` is written by `launch.py` and read by `sft.py`; `progress.jsonl` and `outcome.json` go the other way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tasks.training.config import TrainConfig

JOB_FILE = "job.json"
LOG_FILE = "train.log"
PROGRESS_FILE = "progress.jsonl"
OUTCOME_FILE = "outcome.json"
CHECKPOINTS = "checkpoints"
BEST_WEIGHTS = "best"

TRAIN_LOG = "train_log.jsonl"
LOSS_CURVE = "loss_curve.png"
MERGED = "merged"
"""Of the model folder; the last is a folder with a whole model."""


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
    """One update of the weights. Counts are over all devices."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["step"] = "step"
    step: int
    total_steps: int
    epoch: float
    """Passes over the data that are done."""
    loss: float
    """Mean over the step's trained tokens, in nats."""
    learning_rate: float
    grad_norm: float
    """Before it is clipped."""
    tokens: int
    """Of this step's rows, prompts included."""
    trained_tokens: int
    """Those of them with a loss."""
    seconds: float


class OutOfMemory(BaseModel):
    """GPU memory ran out within a step. The step is done again with less at once; its rows stay the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["out_of_memory"] = "out_of_memory"
    step: int
    tokens_before: int
    """Most tokens that one device read at once until then."""
    tokens: int
    """From then on."""


class Resumed(BaseModel):
    """A training goes on that was interrupted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["resumed"] = "resumed"
    step: int
    """The last one that need not be done again. 0: there was no checkpoint to use."""
    damaged: list[str]
    """A line about each checkpoint that could not be used."""


class Logged(BaseModel):
    """A record of this project's loggers. The parent logs it, since it knows which run that is of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["logged"] = "logged"
    logger: str
    level: int
    message: str


TrainEvent = TrainProgress | OutOfMemory | Resumed
"""What the parent's caller is told."""
ProgressLine = Annotated[TrainEvent | Logged, Field(discriminator="kind")]
"""A line of progress.jsonl."""


class ValidationPoint(BaseModel):
    """The loss on what is not trained on, with the weights after a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    """0: before the first one."""
    loss: float
    """Mean over the trained tokens of all validation rows, in nats."""


class ValidationLosses(BaseModel):
    """The loss on what is not trained on, from first to last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: ValidationPoint
    best: ValidationPoint
    """The least after a step."""
    last: ValidationPoint
    published: ValidationPoint
    """That of the weights that were published."""

    def __str__(self) -> str:
        shown = f"{self.first.loss:.3f} -> {self.last.loss:.3f}"
        if self.best.step == self.last.step:
            return shown
        published = ", published" if self.published.step == self.best.step else ""
        return f"{shown} (best {self.best.loss:.3f}, after step {self.best.step:,}{published})"


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
    tokens_per_second: float
    """Tokens read in a second of its steps, prompts included, on all devices."""
    form: str
    """What was trained, in words: `LoRA, rank 64, alpha 16`."""
    validation: ValidationLosses | None = None
    out_of_memory: list[OutOfMemory] = []
    """Each time that less was read at once, since the process that finished the training began."""


class Outcome(BaseModel):
    """How the training process ended, where it could still say so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["done", "stopped", "refused", "failed", "out_of_memory"]
    """stopped: it was told to end, and goes on when it is started again; refused: the user's data or config cannot be
    trained; failed: the result cannot be used, or not be kept.
    """
    message: str = ""
    counts: TrainCounts | None = None


def append_progress(job: Job, line: TrainEvent | Logged) -> None:
    """Tell the parent of something, by a line of progress.jsonl.

    Raises:
        OSError: it cannot be written.
    """
    with (job.work_dir / PROGRESS_FILE).open("a", encoding="utf-8") as file:
        file.write(line.model_dump_json() + "\n")
