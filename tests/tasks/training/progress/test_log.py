"""The log has each step once, also where a training was resumed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks.training.progress.log import Entry, TrainLog, entries, read_log, tokens_per_second, validation_losses


def step(number: int) -> dict[str, Any]:
    figures = {"loss": 2.0 / number, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": 100, "trained_tokens": 40}
    return {"step": number, "epoch": number / 4, "seconds": 0.5, **figures}


def measured(number: int, loss: float) -> dict[str, Any]:
    return {"step": number, "epoch": number / 4, "validation_loss": loss}


class Told:
    def __init__(self) -> None:
        self.steps: list[float] = []

    def begin(self) -> None: ...

    def tell(self, entry: Entry) -> None:
        self.steps.append(entry["step"])

    def end(self) -> None: ...


def log_steps(log: TrainLog, history: list[dict[str, Any]], steps: range) -> None:
    state = SimpleNamespace(is_world_process_zero=True, log_history=history)
    log.on_train_begin(None, state, None)
    for number in steps:
        history.append(step(number))
        log.on_log(None, state, None)
    log.on_train_end(None, state, None)


def test_a_resumed_training_logs_and_tells_each_step_once(tmp_path: Path) -> None:
    path, told = tmp_path / "train_log.jsonl", Told()
    log_steps(TrainLog(path, [told]), [], range(1, 5))
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # a kill
    log_steps(TrainLog(path, [told]), [step(1), step(2)], range(3, 7))
    assert [entry["step"] for entry in read_log(path)] == [1, 2, 3, 4, 5, 6]
    assert told.steps == [1, 2, 3, 4, 5, 6]


def test_the_summary_of_a_trainer_is_no_entry_and_speed_is_of_the_steps() -> None:
    log = entries([measured(0, 3.0), step(1), step(2), {"step": 2, "epoch": 0.5, "train_runtime": 9.0}])
    assert [entry["step"] for entry in log] == [0, 1, 2]
    assert log[1]["tokens_per_second"] == tokens_per_second(log) == 200


def test_the_best_validation_loss_is_one_after_a_step() -> None:
    log = [measured(0, 1.0), step(1), measured(2, 2.0), measured(4, 2.5)]
    losses = validation_losses(log, published_step=2)
    assert losses and (losses.first.loss, losses.best.step, losses.last.step, losses.published.loss) == (1.0, 2, 4, 2.0)
    assert str(losses) == "1.000 -> 2.500 (best 2.000, after step 2, published)"
    assert validation_losses([step(1)], 1) is None
