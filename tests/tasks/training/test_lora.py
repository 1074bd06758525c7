"""The forms of an adapter: what is trained, what goes on from what, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tasks.engines.config import ModelConfig
from tasks.training.config import TrainConfig
from tasks.training.lora import AdapterFormError, check_form, form, load_model, with_form_of_init
from tests.tasks.training.jobs import job_of, write_adapter

CPU = torch.device("cpu")


def test_the_form_is_told_in_words() -> None:
    assert form(TrainConfig(use_lora=False)) == "all weights"
    assert form(TrainConfig()) == "LoRA, rank 64, alpha 16"
    both = TrainConfig(use_dora=True, use_rslora=True, lora_r=8, quantization="4bit", init_adapter=Path("x/old"))
    assert form(both) == "DoRA and rsLoRA, rank 8, alpha 16, on a base in 4 bits, continued from old"


def test_dora_trains_lengths_and_rslora_scales_by_the_root_of_the_rank(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(job_of(tiny_model, tmp_path, use_dora=True, use_rslora=True), torch.bfloat16, CPU)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert any("magnitude" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert model.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 8 / 4**0.5


def test_a_training_goes_on_with_the_form_and_weights_of_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    job = job_of(tiny_model, tmp_path, use_rslora=True)
    before = write_adapter(job, tmp_path / "before")
    config = with_form_of_init(TrainConfig(init_adapter=before))
    assert (config.lora_r, config.lora_alpha, config.use_rslora, config.use_dora) == (4, 8, True, False)
    model = load_model(job.model_copy(update={"config": config}), torch.float32, CPU)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(bool(p.any()) for name, p in trained.items() if "lora_B" in name)


def test_another_form_or_no_adapter_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    before = write_adapter(job_of(tiny_model, tmp_path), tmp_path / "before")
    with pytest.raises(AdapterFormError, match=r"wants \(lora_r 32\); pass --train.lora_r 4, or leave it"):
        with_form_of_init(TrainConfig(init_adapter=before, lora_r=32))
    with pytest.raises(AdapterFormError, match=r"wants \(lora_r 64, use_rslora False\); pass --train.lora_r 4"):
        rs = write_adapter(job_of(tiny_model, tmp_path, use_rslora=True), tmp_path / "rs")
        with_form_of_init(TrainConfig(init_adapter=rs, lora_r=64, lora_alpha=8, use_rslora=False))  # both the defaults
    with pytest.raises(AdapterFormError, match=r"holds no adapter_config\.json"):
        with_form_of_init(TrainConfig(init_adapter=tmp_path))
    with pytest.raises(AdapterFormError, match=r"also train\.output_dir"):
        check_form(TrainConfig(init_adapter=before), ModelConfig(path=str(tiny_model)), before)
    (before / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(AdapterFormError, match="of the kind IA3; wanted LORA"):
        with_form_of_init(TrainConfig(init_adapter=before))
    (before / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterFormError, match="is not JSON"):
        with_form_of_init(TrainConfig(init_adapter=before))


def test_weights_that_are_pickled_or_not_there_are_refused_before_they_are_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    before = write_adapter(job_of(tiny_model, tmp_path), tmp_path / "before")
    (before / "adapter_model.safetensors").rename(before / "adapter_model.bin")
    with pytest.raises(AdapterFormError, match=r"no adapter_model\.safetensors but adapter_model\.bin, a pickle"):
        with_form_of_init(TrainConfig(init_adapter=before))
    (before / "adapter_model.bin").unlink()
    with pytest.raises(AdapterFormError, match=r"holds no adapter_model\.safetensors$"):
        with_form_of_init(TrainConfig(init_adapter=before))


def test_four_bits_need_a_gpu_that_is_used(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    on_cpus = tmp_path / "cpus.yaml"
    on_cpus.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\n")
    for otherwise in ({"num_gpus": 0}, {"accelerate_config": on_cpus}):
        config = TrainConfig.model_validate({"quantization": "4bit", **otherwise})
        with pytest.raises(AdapterFormError, match="4bit needs a GPU, and none is used here; leave it out"):
            check_form(config, ModelConfig(path=str(tiny_model)), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_four_bits_without_bitsandbytes_are_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(AdapterFormError, match=r"pip install -e '\.\[qlora\]'"):
        check_form(TrainConfig(quantization="4bit"), ModelConfig(path=str(tiny_model)), tmp_path)
