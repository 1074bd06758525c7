"""A training that was interrupted, in any way and at any moment, ends as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback, TrainerState

from tasks.training.checkpoints.folder import WRITING
from tasks.training.job import Job, Outcome
from tasks.training.processes.stopping import StopSignal, TrainingStopped
from tasks.training.rows.token_data import token_data
from tasks.training.rows.token_rows import TokenRows
from tasks.training.sft import run_job
from tasks.training.steps.trainer import make_trainer
from tests.tasks.training.interrupting import (
    CONFIG,
    STEPS,
    Forked,
    Process,
    Run,
    adapter,
    events,
    kill,
    losses,
    make_job,
)
from tests.tasks.training.small_disk import SmallDisk

Start = Callable[[Job], Process]


@pytest.fixture(scope="module")
def start() -> Start:
    """Starts a training process that need not import torch anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tasks.training.sft", "tasks.training.steps.trainer", "tasks.training.model_folder.publish"]
    )
    return lambda job: Forked(context, job)


@pytest.fixture(scope="module")
def reference(start: Start, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that nothing interrupted."""
    run = Run(start, make_job(tmp_path_factory.mktemp("reference"), tiny_model))
    assert run.to_its_end().kind == "done"
    assert sorted(run.losses) == list(range(1, STEPS + 1))
    return run


def but_for_speed(outcome: Outcome) -> Outcome:
    assert outcome.counts is not None
    return outcome.model_copy(update={"counts": outcome.counts.model_copy(update={"tokens_per_second": 0})})


def assert_same(run: Run, reference: Run) -> None:
    """Not nearly: bit by bit, with one thread."""
    assert run.losses == reference.losses
    assert but_for_speed(run.outcome()) == but_for_speed(reference.outcome()) and run.outcome().kind == "done"
    torch.testing.assert_close(adapter(run.job), adapter(reference.job), rtol=0, atol=0)


def test_kills_at_any_moment_change_neither_losses_nor_adapter(
    start: Start, tiny_model: Path, tmp_path: Path, reference: Run
) -> None:
    run = Run(start, make_job(tmp_path, tiny_model))
    moments = [
        run.has_trained(1),
        lambda: run.newest_step() >= 5 and run.is_writing(),
        lambda: run.newest_step() >= 9 and not run.is_writing(),
        lambda: run.newest_step() >= 12 and run.is_writing(),
        lambda: run.newest_step() == STEPS,  # all is learnt, nothing is published
    ]
    for moment in moments:
        assert run.until(moment, kill) == -signal.SIGKILL
    assert not run.job.output_dir.exists()
    run.to_its_end()
    assert run.events("resumed") == [{"kind": "resumed", "step": STEPS, "damaged": []}]
    assert_same(run, reference)


def test_sigterm_saves_first_and_the_same_job_goes_on(
    start: Start, tiny_model: Path, tmp_path: Path, reference: Run
) -> None:
    rarely = CONFIG.model_copy(update={"checkpoint_every_min": 60, "num_train_epochs": 2})
    run = Run(start, make_job(tmp_path, tiny_model, rarely))
    assert run.until(run.has_trained(7), lambda pid: os.kill(pid, signal.SIGTERM)) == 1
    outcome, stopped_after = run.outcome(), max(run.losses)
    assert outcome.kind == "stopped" and f"after step {stopped_after} of {STEPS}" in outcome.message
    assert "run the same command again" in outcome.message and run.newest_step() == stopped_after
    run.to_its_end()
    assert [event["step"] for event in run.events("resumed")] == [stopped_after]
    assert_same(run, reference)


@pytest.mark.parametrize("step", [0, 7])
def test_a_step_that_is_under_way_is_not_waited_for(
    tiny_model: Path, tmp_path: Path, reference: Run, step: int
) -> None:
    job, stop = make_job(tmp_path, tiny_model, CONFIG.model_copy(update={"checkpoint_every_min": 60})), StopSignal()

    class Stop(TrainerCallback):
        def on_step_begin(self, args: object, state: TrainerState, control: object, **_: object) -> None:
            stop.came = state.global_step == step

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokens = token_data(job.data, tiny_model, tokenizer, {}, job.config)
    trainer = make_trainer(job, tokenizer, TokenRows(tokens, job.data, np.arange(24)), stop=stop)
    trainer.add_callback(Stop())
    with pytest.raises(TrainingStopped, match=f"after step {step} of {STEPS}"):
        trainer.train_from_newest()
    assert run_job(job).kind == "done"
    assert [event["step"] for event in events(job) if event["kind"] == "resumed"] == [step]
    assert losses(job) == pytest.approx(reference.losses, abs=1e-5)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(
    start: Start, tiny_model: Path, tmp_path: Path, reference: Run
) -> None:
    run = Run(start, make_job(tmp_path, tiny_model))
    run.until(lambda: run.newest_step() >= 6, kill)
    newest = run.newest_step()
    os.truncate(run.checkpoints / f"checkpoint-{newest}" / "optimizer.pt", 1000)
    run.to_its_end()
    (resumed,) = run.events("resumed")
    assert resumed["step"] == newest - 1
    assert f"checkpoint-{newest} is damaged (optimizer.pt has 1,000 of" in str(resumed["damaged"])
    assert_same(run, reference)


def test_only_the_newest_checkpoints_are_kept_while_it_trains(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    run = Run(start, make_job(tmp_path, tiny_model, CONFIG.model_copy(update={"keep_checkpoints": 3})))
    run.until(lambda: run.newest_step() >= 8 and not run.is_writing(), lambda pid: os.kill(pid, signal.SIGTERM))
    steps = sorted(int(path.name.rpartition("-")[2]) for path in run.checkpoints.iterdir())  # and nothing else
    assert steps == list(range(steps[-1] - 2, steps[-1] + 1))


def test_a_disk_that_gets_full_is_one_line_and_the_last_good_checkpoint_is_gone_on_from(
    start: Start, tiny_model: Path, small_disk: SmallDisk, reference: Run
) -> None:
    run = Run(start, make_job(small_disk.folder, tiny_model))

    def fill_between_checkpoints(pid: int) -> None:
        process = psutil.Process(pid)
        while True:
            process.suspend()
            while process.status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
            if not (run.checkpoints / WRITING).exists():
                break
            process.resume()
            time.sleep(0.002)
        small_disk.fill(pid)
        process.resume()

    assert run.until(lambda: run.newest_step() >= 4, fill_between_checkpoints) == 1
    outcome, newest = run.outcome(), run.newest_step()
    assert outcome.kind == "failed" and "\n" not in outcome.message
    assert f"could not be written to {run.checkpoints}: no space left" in outcome.message
    assert f"the one of step {newest} is kept" in outcome.message and "MB" in outcome.message
    small_disk.empty()
    assert run.until(lambda: run.newest_step() == STEPS, fill_between_checkpoints) == 1
    assert [event["step"] for event in run.events("resumed")] == [newest]
    assert f"no space left in {small_disk.folder} " in run.outcome().message
    small_disk.empty()
    run.to_its_end()
    assert_same(run, reference)


def test_the_best_weights_on_validation_problems_outlast_a_kill_and_are_published(
    start: Start, tiny_model: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(
        update={
            "validation_share": 0.25,
            "load_best_model_at_end": True,
            "learning_rate": 1e-2,
            "num_train_epochs": 8,
            "checkpoint_every_min": 60,
        }
    )
    whole, killed = (Run(start, make_job(tmp_path / name, tiny_model, config)) for name in ("whole", "killed"))
    assert whole.to_its_end().kind == "done"
    counts = whole.outcome().counts
    assert counts is not None and counts.rows == 18 and counts.steps == 72 and counts.validation is not None
    best = counts.validation.best
    assert best.step < 67 and counts.validation.published == best and best.loss < counts.validation.last.loss
    assert killed.until(killed.has_trained(best.step + 5), kill) == -signal.SIGKILL
    killed.to_its_end()
    assert killed.events("resumed")
    assert_same(killed, whole)
    log = [json.loads(line) for line in (killed.job.output_dir / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 73))
    assert [entry["step"] for entry in log if "validation_loss" in entry] == list(range(0, 73, 9))
