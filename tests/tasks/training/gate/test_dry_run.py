"""The plan of a training: the steps that it takes, the parameters that it trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.engines.config import ModelConfig
from tasks.training.config import TrainConfig
from tasks.training.gate.audit_data import audit_data
from tasks.training.gate.dry_run import plan, plan_rows
from tasks.training.launch import train_adapter
from tests.tasks.training.interrupting import REPOSITORY
from tests.tasks.training.jobs import job_of, plain_job, write_adapter


def write(path: Path, rows: int) -> Path:
    lines = [json.dumps({"prompt": f"What is {i} + 1?", "completion": str(i + 1)}) + "\n" for i in range(rows)]
    path.write_text("".join(lines))
    return path


def test_the_plan_has_the_steps_that_the_training_then_takes(tiny_model: Path, tmp_path: Path) -> None:
    data, model = [write(tmp_path / "a.jsonl", 7)], ModelConfig(path=str(tiny_model))
    config = TrainConfig(num_train_epochs=1.5, gradient_accumulation_steps=2, num_gpus=0, lora_r=4, learning_rate=1e-2)
    planned = plan(audit_data(data, model, config), model, config)
    trained = train_adapter(data, model, config, tmp_path / "out", "", lambda _: None)
    assert planned.steps == trained.counts.steps == 3
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "out" / "adapter_model.safetensors").values()
    assert planned.trained_parameters == sum(tensor.numel() for tensor in weights)


def test_the_plan_grows_with_what_costs_memory(tiny_model: Path, tmp_path: Path) -> None:
    data, model = [write(tmp_path / "a.jsonl", 3)], ModelConfig(path=str(tiny_model))

    def memory(**config: object) -> int:
        settings = TrainConfig.model_validate({"num_gpus": 0, **config})
        return plan(audit_data(data, model, settings), model, settings).memory_bytes

    assert memory(lora_r=128) > memory(lora_r=64)
    assert memory(per_device_train_batch_size=4) > memory(per_device_train_batch_size=2)
    full = TrainConfig(num_gpus=0, use_lora=False)
    planned = plan(audit_data(data, model, full), model, full)
    assert planned.trained_parameters == planned.parameters
    assert planned.weights_bytes == 16 * planned.parameters
    shown = dict(plan_rows(planned, full))
    assert shown["steps"] == "3 of 16 rows, in 3 passes"
    assert shown["trained parameters"].endswith("all of the model's")


def shaped(folder: Path, like: Path, **shape: int) -> Path:
    """A model of this shape with random weights, and the tokenizer of another one."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    usual = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 2048}
    Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **{**usual, **shape})).save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)
    return folder


MEASURED = """
import sys, threading, time
from pathlib import Path
import psutil
from tasks.training.job import Job
from tasks.training.rows.token_data import token_data
from tasks.training.rows.token_rows import TokenRows
from tasks.training.steps.trainer import make_trainer
from transformers import AutoTokenizer
job = Job.model_validate_json(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(job.model_folder)
tokens = token_data(job.data, job.model_folder, tokenizer, {}, job.config)
process, used = psutil.Process(), []
def watch():
    while True:
        used.append(process.memory_full_info().uss)
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
time.sleep(0.1)
trainer = make_trainer(job, tokenizer, TokenRows(tokens, job.data, __import__("numpy").arange(len(tokens.rows))))
trainer._save_checkpoint = lambda *_: None
trainer.train()
print(max(used) - used[0])
"""


@pytest.mark.parametrize(
    "shape",
    [
        {"vocab_size": 150_000, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
        {"vocab_size": 8_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4},
    ],
    ids=["many words", "wide layers"],
)
def test_a_training_takes_about_as_much_memory_as_was_estimated(
    tiny_model: Path, tmp_path: Path, shape: dict[str, int]
) -> None:
    model = shaped(tmp_path / "model", tiny_model, **shape)
    data = tmp_path / "long.jsonl"
    rows = [{"prompt": f"{i} " + "What is " * 120, "completion": f"The answer is {i}."} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainConfig(num_gpus=0, num_train_epochs=1, lora_r=16, gradient_accumulation_steps=1)
    job = plain_job(model, data, config, tmp_path / "out", tmp_path, 0)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "job.json")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    of_it = ModelConfig(path=str(model))
    estimated = plan(audit_data([data], of_it, config), of_it, config).memory_bytes
    assert 1 / 1.6 < estimated / int(ended.stdout.splitlines()[-1]) < 1.6


def test_the_plan_goes_on_in_the_form_of_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    before = write_adapter(job_of(tiny_model, tmp_path, lora_r=2), tmp_path / "before")
    data, model = [write(tmp_path / "a.jsonl", 3)], ModelConfig(path=str(tiny_model))
    parameters = []
    for settings in ({"init_adapter": before}, {"lora_r": 2}):
        config = TrainConfig.model_validate({"num_gpus": 0, **settings})
        parameters.append(plan(audit_data(data, model, config), model, config).trained_parameters)
    assert parameters[0] == parameters[1]


def test_a_base_in_4_bits_takes_less(tiny_model: Path, tmp_path: Path) -> None:
    data, model = [write(tmp_path / "a.jsonl", 3)], ModelConfig(path=str(tiny_model))
    whole, small = (TrainConfig(num_gpus=0, lora_r=1, quantization=q) for q in ("none", "4bit"))
    found = audit_data(data, model, whole)
    assert plan(found, model, small).weights_bytes < 0.7 * plan(found, model, whole).weights_bytes


def test_the_layers_of_gpt2_are_counted_as_peft_does(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2))
    gpt2.save_pretrained(tmp_path / "gpt2")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "gpt2")
    data, model, config = (
        [write(tmp_path / "a.jsonl", 3)],
        ModelConfig(path=str(tmp_path / "gpt2")),
        TrainConfig(lora_r=4),
    )
    planned = plan(audit_data(data, model, config), model, config)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    assert planned.trained_parameters == get_peft_model(gpt2, lora).get_nb_trainable_parameters()[0]


def test_the_weights_of_a_large_model_are_not_loaded_for_it(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    large = tmp_path / "large"
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(large)
    config = AutoConfig.from_pretrained(tiny_model)
    config.update({"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128})
    config.layer_types = ["full_attention"] * 36
    config.save_pretrained(large)
    torch.save({}, large / "pytorch_model.bin")
    model = ModelConfig(path=str(large))
    found = audit_data([write(tmp_path / "a.jsonl", 3)], model, TrainConfig())
    planned = plan(found, model, TrainConfig(num_gpus=0))
    assert planned.parameters > 5e9
    assert planned.weights_bytes == pytest.approx(4 * planned.parameters + 16 * planned.trained_parameters)
