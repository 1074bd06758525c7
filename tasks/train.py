"""Prefect task: fine-tune on data files, in a process of its own.

Not retried by itself: a training that failed has a reason to be looked at. The same command resumes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from rich.console import Console

from tasks.artifacts import artifact_key, show_markdown
from tasks.caching import by_content
from tasks.engines.config import ModelConfig
from tasks.evaluation.report import mask_audit_markdown
from tasks.live_progress import TrainingFigures, live_progress
from tasks.observing.figures import counted_training
from tasks.training.config import TrainConfig
from tasks.training.gate.audit import audit_table
from tasks.training.gate.audit_data import audit_data
from tasks.training.job import TrainEvent
from tasks.training.launch import AdapterRef, train_adapter, train_key
from tasks.training.progress.bar import show_training


def _content(
    data: Sequence[Path], model: ModelConfig, config: TrainConfig, output_dir: Path, resolved_config: str, env: str
) -> str:
    return train_key(data, model, config)


@task(
    name="train",
    task_run_name="train {model.path} into {output_dir}",
    cache_key_fn=by_content(_content, version=2),
    persist_result=True,
    result_serializer="json",
)
def train(
    data: Sequence[Path], model: ModelConfig, config: TrainConfig, output_dir: Path, resolved_config: str, env: str
) -> AdapterRef:
    """Publish the model folder `output_dir`.

    Args:
        resolved_config: YAML, kept beside the weights.
        env: the name of the environment that it is trained for.

    Raises:
        DataFileError: a row cannot be trained on, with file:line, or is not what the model was sent.
        NothingToTrainError: no row is left to train on.
        TrainingRefusedError, TrainingError: see `train_adapter`.
    """
    found = audit_data(data, model, config)
    Console(stderr=True).print(audit_table(found))
    show_markdown(artifact_key(env, "mask audit"), mask_audit_markdown(found), f"{found.rows:,} rows: {output_dir}")
    figures = TrainingFigures()
    with show_training() as show, live_progress(artifact_key(env, "training"), f"training {output_dir}", figures):

        def on_progress(event: TrainEvent) -> None:
            show(event)
            figures(event)

        adapter = train_adapter(data, model, config, output_dir, resolved_config, counted_training(on_progress))
    return adapter.model_copy(update={"audit": found})
