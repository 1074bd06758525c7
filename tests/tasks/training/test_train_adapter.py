"""Real training of a tiny model: in the product's own process, and inside this one where that shows the same."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.engines import open_engine
from tasks.engines.base import ChatRequest, Completion, Message, Sampling
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.engines.model_files import model_fingerprint, resolve_model
from tasks.rollout.artifact import content_hash
from tasks.training.config import TrainConfig
from tasks.training.job import CHECKPOINTS, Job, Outcome, Resumed, TrainEvent, TrainProgress
from tasks.training.launch import (
    AdapterRef,
    TrainingError,
    TrainingRefusedError,
    train_adapter,
    train_key,
)
from tasks.training.lora import check_form, with_form_of_init
from tasks.training.sft import run_job
from tests.tasks.training.jobs import plain_job

REPOSITORY = Path(__file__).parents[3]
FILES = {
    "config.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "training_args.bin",
}
RUN_FILES = {"README.md", "loss_curve.png", "run_config.yaml", "train_log.jsonl"}
CONFIG = TrainConfig(learning_rate=1e-2, gradient_accumulation_steps=2, max_length=100)
QUESTION: list[Message] = [{"role": "user", "content": "What is 7 + 30?"}]


def write_data(path: Path, rows: int = 24, overlong: int = 0) -> Path:
    """Rows that answer sums, and some with a prompt that is too long."""
    chats = [(f"What is {i} + 30?", f"The answer is {i + 30}.") for i in range(rows)]
    chats += [("word " * 100 + str(i), "Yes.") for i in range(overlong)]
    with path.open("w") as file:
        for question, answer in chats:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages, "metadata": {"agent_name": "solver"}}) + "\n")
    return path


def ignore(_: TrainEvent) -> None:
    """For those who do not look."""


def greedy(model: Path, adapter: Path) -> list[Completion]:
    """What the model and the adapter answer to the question."""

    async def run() -> list[Completion]:
        engine = open_engine(ModelConfig(path=str(model)), EngineConfig(kind="in_process"), {"tuned": adapter})
        async with engine:
            sampling = Sampling(temperature=0, max_tokens=30)
            return [await engine.generate(ChatRequest(QUESTION, sampling, 0, name)) for name in (None, "tuned")]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterRef, list[TrainProgress]]:
    """An adapter made by the whole machinery, and its progress."""
    folder = tmp_path_factory.mktemp("trained")
    events: list[TrainEvent] = []
    data = write_data(folder / "data.jsonl", overlong=2)
    model = ModelConfig(path=str(tiny_model))
    adapter = train_adapter([data], model, CONFIG, folder / "adapter", "seed: 0\n", events.append)
    return adapter, [event for event in events if isinstance(event, TrainProgress)]


def test_the_loss_falls_and_each_step_is_reported(trained: tuple[AdapterRef, list[TrainProgress]]) -> None:
    ref, progress = trained
    assert [p.step for p in progress] == list(range(1, 19)) == list(range(1, progress[0].total_steps + 1))
    assert progress[-1].loss < 0.5 * progress[0].loss
    assert (ref.counts.first_loss, ref.counts.last_loss) == (progress[0].loss, progress[-1].loss)
    assert progress[0].learning_rate > progress[-1].learning_rate
    assert all(p.tokens > p.trained_tokens > 0 and p.grad_norm > 0 and p.seconds > 0 for p in progress)


def test_overlong_rows_are_dropped_and_counted(trained: tuple[AdapterRef, list[TrainProgress]]) -> None:
    counts = trained[0].counts
    assert (counts.rows, counts.dropped_overlong, counts.steps) == (24, 2, 18)


def test_the_model_folder_holds_exactly_its_files(trained: tuple[AdapterRef, list[TrainProgress]]) -> None:
    folder = trained[0].path
    assert {p.name for p in folder.iterdir()} == FILES | RUN_FILES
    assert (folder / "run_config.yaml").read_text() == "seed: 0\n"
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []  # the work folder is gone
    assert content_hash(folder) == trained[0].sha256


def test_peft_and_transformers_load_the_folder(
    trained: tuple[AdapterRef, list[TrainProgress]], tiny_model: Path
) -> None:
    folder = trained[0].path
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert any("lora_B" in name and bool(p.any()) for name, p in model.named_parameters())
    ours, base = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tiny_model)
    assert ours.apply_chat_template(QUESTION, tokenize=False) == base.apply_chat_template(QUESTION, tokenize=False)
    assert (ours.eos_token_id, ours.pad_token_id) == (base.eos_token_id, base.pad_token_id)


def test_the_engine_applies_the_adapter_and_it_has_learned_to_answer_and_to_stop(
    trained: tuple[AdapterRef, list[TrainProgress]], tiny_model: Path
) -> None:
    before, after = greedy(tiny_model, trained[0].path)
    assert not before.text.startswith("The answer is ")
    assert after.text.startswith("The answer is ") and after.finish_reason == "stop"


def test_the_published_arguments_hold_no_token(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_thisisasecret")
    assert run_job(make_job(CONFIG)).kind == "done"
    assert not [p for p in (tmp_path / "out").iterdir() if b"hf_thisisasecret" in p.read_bytes()]


def test_a_kill_of_the_parent_kills_the_training_and_the_same_call_resumes_it(tiny_model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.jsonl")
    config = CONFIG.model_copy(
        update={"num_train_epochs": 25, "per_device_train_batch_size": 1, "checkpoint_every_min": 0.003}
    )
    model = ModelConfig(path=str(tiny_model))
    script = (
        "from pathlib import Path; from tasks.engines.config import ModelConfig; from tasks.training.launch import *; "
        f"train_adapter([Path({str(data)!r})], ModelConfig.model_validate_json({model.model_dump_json()!r}), "
        f"TrainConfig.model_validate_json({config.model_dump_json()!r}), Path({str(tmp_path / 'out')!r}), '', "
        "lambda p: print(p.step, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    next(line for line in parent.stdout if int(line) >= 70)  # of 300 steps
    work_dir = tmp_path / f".out.work-{train_key([data], model, config)}"
    with pytest.raises(TrainingError, match="another process is training"):
        train_adapter([data], model, config, tmp_path / "out", "", ignore)
    assert training_processes(work_dir)
    parent.kill()
    parent.wait()
    wait_until(lambda: not training_processes(work_dir))

    events: list[TrainEvent] = []
    ref = train_adapter([data], model, config, tmp_path / "out", "", events.append)
    assert isinstance(events[0], Resumed) and events[0].step > 0
    assert [event.step for event in events[1:]] == list(range(events[0].step + 1, 301)) and ref.counts.steps == 300
    assert not work_dir.exists()


def test_what_the_training_process_logs_is_logged_by_its_parent(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path / "data.jsonl", rows=4)
    with caplog.at_level(logging.INFO, "tasks"):
        train_adapter([data], ModelConfig(path=str(tiny_model)), CONFIG, tmp_path / "out", "", ignore)
    [record] = [record for record in caplog.records if record.name == "tasks.training.sft"]
    assert record.levelname == "INFO" and record.getMessage().startswith("4 rows are trained on, ")


def test_whatever_interrupts_the_parent_has_the_training_process_save_and_end(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_data(tmp_path / "data.jsonl")
    config = CONFIG.model_copy(update={"num_train_epochs": 100, "checkpoint_every_min": 60})  # 600 steps
    model = ModelConfig(path=str(tiny_model))
    work_dir = tmp_path / f".out.work-{train_key([data], model, config)}"
    events: list[TrainEvent] = []

    def interrupt(event: TrainEvent) -> None:
        events.append(event)
        if isinstance(event, TrainProgress):
            raise KeyboardInterrupt

    def terminate(event: TrainEvent) -> None:
        events.append(event)
        if isinstance(event, TrainProgress):
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(event: TrainEvent) -> None:
        events.append(event)
        for pid in training_processes(work_dir):
            os.kill(pid, signal.SIGKILL)

    for how, error, message in (
        (interrupt, KeyboardInterrupt, None),
        (terminate, SystemExit, "143"),
        (kill, TrainingError, r"killed by signal 9.*same command again"),
    ):
        with pytest.raises(error, match=message):
            train_adapter([data], model, config, tmp_path / "out", "", how)
        assert work_dir.is_dir() and not training_processes(work_dir) and not (tmp_path / "out").exists()
    resumed = [event.step for event in events if isinstance(event, Resumed)]
    assert len(resumed) == 2 and 0 < resumed[0] < resumed[1]
    assert caplog.text.count("the same command goes on with it") == 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def training_processes(work_dir: Path) -> list[int]:
    """Live processes that work on a job, the parent's own not counted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"tasks.training.sft" in command and str(work_dir).encode() in command:
            found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def make_job(tiny_model: Path, tmp_path: Path) -> Callable[..., Job]:
    """A job for `run_job`, which trains inside this process."""

    def make(
        config: TrainConfig,
        model: Path = tiny_model,
        data: Path | None = None,
        chat_template_args: dict[str, Any] | None = None,
    ) -> Job:
        (tmp_path / "work").mkdir(exist_ok=True)
        return plain_job(
            model,
            data or write_data(tmp_path / "data.jsonl", rows=4),
            config.model_copy(update={"num_train_epochs": 1}),
            tmp_path / "out",
            tmp_path / "work",
            os.getpid(),
            chat_template_args=chat_template_args or {},
        )

    return make


def test_a_full_fine_tune_publishes_a_whole_model(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    said = {"eos_token_id": [2, 0], "temperature": 0.6, "do_sample": False}  # transformers would not write this
    (base / "generation_config.json").write_text(json.dumps(said))
    outcome = run_job(make_job(CONFIG.model_copy(update={"use_lora": False}), model=base))
    assert outcome.kind == "done"
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {n for n in FILES if "adapter" not in n} | {
        "model.safetensors",
        "generation_config.json",
        *RUN_FILES,
    }
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == said
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (tiny_model, tmp_path / "out"))
    assert before.keys() == after.keys() and any(not torch.equal(before[k], after[k]) for k in before)


def test_what_a_kill_while_publishing_has_left_is_gone_with_the_next_publishing(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    job = make_job(CONFIG)
    (job_file := tmp_path / "work/job.json").write_text(job.model_dump_json())
    training = subprocess.Popen([sys.executable, "-m", "tasks.training.sft", str(job_file)], cwd=REPOSITORY)
    wait_until(lambda: any((tmp_path / "work").glob("*/adapter_model.safetensors")), 60)
    training.kill()
    training.wait()
    assert not (tmp_path / "out").exists() and list((tmp_path / "work").glob("*/adapter_model.safetensors"))
    assert run_job(job).kind == "done"
    assert not list((tmp_path / "work").glob("*/adapter_model.safetensors"))


def test_an_adapter_names_its_base_as_the_user_did(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    assert run_job(make_job(CONFIG)).kind == "done"
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == "owner/name"


def test_a_loss_that_is_no_number_ends_the_training_and_publishes_nothing(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    outcome = run_job(make_job(CONFIG, model=broken))
    assert outcome.kind == "failed" and "loss is nan at step 1" in outcome.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("use_lora", [True, False])
def test_weights_that_did_not_change_are_not_published(
    tmp_path: Path, make_job: Callable[..., Job], use_lora: bool
) -> None:
    outcome = run_job(make_job(CONFIG.model_copy(update={"learning_rate": 1e-60, "use_lora": use_lora})))
    assert outcome.kind == "failed" and "left every weight as it was" in outcome.message
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    overlong = write_data(tmp_path / "overlong.jsonl", rows=0, overlong=3)
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n")
    for data, message in ((overlong, "all 3 rows are longer than train.max_length=100"), (broken, "broken.jsonl:1")):
        outcome: Outcome = run_job(make_job(CONFIG, data=data))
        assert outcome.kind == "refused" and message in outcome.message and "\n" not in outcome.message


def test_a_template_argument_that_the_model_does_not_take_is_refused_in_one_line(make_job: Callable[..., Job]) -> None:
    outcome: Outcome = run_job(make_job(CONFIG, chat_template_args={"enable_thinking": False}))
    assert outcome.kind == "refused" and "knows no enable_thinking" in outcome.message and "\n" not in outcome.message


def test_an_output_folder_that_cannot_be_written_is_refused_before_anything_starts(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("")
    data = write_data(tmp_path / "data.jsonl")
    for output, message in (
        (Path("/proc/nope"), "cannot write /proc/nope"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot write"),
        (tmp_path / "thesis", "no training wrote"),
    ):
        with pytest.raises(TrainingRefusedError, match=message):
            train_adapter([data], ModelConfig(path=str(tiny_model)), CONFIG, output, "", ignore)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl", "file", "thesis"]


def test_the_key_is_the_content_that_decides_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    data, model = write_data(tmp_path / "a.jsonl"), ModelConfig(path=str(tiny_model))
    key = train_key([data], model, CONFIG)
    moved = ModelConfig(path=str(shutil.copytree(tiny_model, tmp_path / "moved")))
    elsewhere = CONFIG.model_copy(update={"output_dir": tmp_path, "data_path": "x"})
    assert train_key([write_data(tmp_path / "b.jsonl")], moved, elsewhere) == key
    other_machine = {
        "num_gpus": 2,
        "accelerate_config": tmp_path / "x",
        "checkpoint_every_min": 1,
        "keep_checkpoints": 9,
    }
    assert train_key([data], model, CONFIG.model_copy(update=other_machine)) == key
    same_step = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "gradient_checkpointing": True}
    assert train_key([data], model, CONFIG.model_copy(update=same_step)) == key
    assert train_key([data], model, CONFIG.model_copy(update={"per_device_train_batch_size": 4})) != key
    assert train_key([data], model, CONFIG.model_copy(update={"seed": 1})) != key
    weighed = CONFIG.model_copy(update={"data_path": {str(data): 2}})
    assert train_key([data], model, weighed) != key == train_key([tmp_path / "b.jsonl"], model, weighed)
    told = model.model_copy(update={"chat_template_args": {"enable_thinking": False}})
    assert train_key([data], told, CONFIG) != key
    assert train_key([write_data(tmp_path / "c.jsonl", rows=5)], model, CONFIG) != key


def test_a_ref_says_which_model_it_was_trained_from(
    trained: tuple[AdapterRef, list[TrainProgress]], tiny_model: Path
) -> None:
    assert trained[0].base_fingerprint == model_fingerprint(ModelConfig(path=str(tiny_model)))
    assert AdapterRef.model_validate_json(trained[0].model_dump_json()) == trained[0]


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    job = make_job(CONFIG)
    (job.work_dir / CHECKPOINTS / "checkpoint-1").mkdir(parents=True)
    assert run_job(job).kind == "done"


def test_a_training_that_is_refused_leaves_the_adapter_before_it_as_it_was(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    assert run_job(make_job(CONFIG)).kind == "done"
    before, card = content_hash(tmp_path / "out"), (tmp_path / "out/README.md").read_text()
    shutil.rmtree(tmp_path / "work" / CHECKPOINTS)
    assert run_job(make_job(CONFIG.model_copy(update={"learning_rate": 1e-60}))).kind == "failed"
    assert (content_hash(tmp_path / "out"), (tmp_path / "out/README.md").read_text()) == (before, card)


def test_dora_with_rslora_goes_on_in_its_form_and_is_merged(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    form = CONFIG.model_copy(update={"lora_r": 4, "use_dora": True, "use_rslora": True})
    assert run_job(make_job(form)).kind == "done"
    first = shutil.move(tmp_path / "out", tmp_path / "first")
    shutil.rmtree(tmp_path / "work" / CHECKPOINTS)
    onward = with_form_of_init(
        TrainConfig(**{**CONFIG.model_dump(exclude_unset=True), "init_adapter": first, "merge": True})
    )
    outcome = run_job(make_job(onward, model=tiny_model))
    assert (
        outcome.counts is not None and outcome.counts.form == "DoRA and rsLoRA, rank 4, alpha 16, continued from first"
    )
    saved = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (saved["r"], saved["use_dora"], saved["use_rslora"]) == (4, True, True)
    prompt = torch.arange(20).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out/merged")
    with torch.no_grad():
        plain = base(prompt).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "out")(prompt).logits
        torch.testing.assert_close(merged(prompt).logits, adapted, rtol=1e-3, atol=1e-3)
    assert (adapted - plain).abs().max() > 0.1


def test_an_adapter_of_another_model_is_not_gone_on_from(
    tiny_model: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    job = make_job(CONFIG)
    assert run_job(job).kind == "done"
    before = shutil.move(tmp_path / "out", tmp_path / "first")
    shutil.rmtree(tmp_path / "work" / CHECKPOINTS)
    onward = TrainConfig(**{**CONFIG.model_dump(exclude_unset=True), "init_adapter": before})
    with pytest.raises(ValueError, match=r"train\.init_adapter: .*first was trained on owner/name, but model\.path is"):
        check_form(onward, ModelConfig(path=str(tiny_model)), tmp_path / "out")
    starter = resolve_model(ModelConfig(path="starter"))
    outcome = run_job(make_job(with_form_of_init(onward), model=starter))
    assert outcome.kind == "refused" and "first does not load onto owner/name" in outcome.message
    assert not (tmp_path / "out").exists()
