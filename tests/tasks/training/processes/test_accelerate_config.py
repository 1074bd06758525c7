"""A file for accelerate is judged before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tasks.training.processes.accelerate_config import AccelerateConfigError, read_accelerate_config


def test_what_accelerate_config_writes_is_read(tmp_path: Path) -> None:
    from accelerate.utils import write_basic_config

    written = tmp_path / "default.json"
    assert write_basic_config(save_location=str(written))
    assert read_accelerate_config(written).strategy == "ddp"
    cpu = tmp_path / "cpu.yaml"
    cpu.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n")
    found = read_accelerate_config(cpu)
    assert (found.strategy, found.num_processes, found.use_cpu) == ("ddp", 2, True)
    sharded = tmp_path / "fsdp.yaml"
    sharded.write_text("distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 2\n")
    assert read_accelerate_config(sharded).strategy == "fsdp"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read .*: No such file"),
        ("use_cpu: true\na: ]", "file.yaml:2 is not YAML"),
        ("just words", "found str in"),
        ("distributed_type: MULTI_GPU\nprocesses: 2\n", "unknown setting processes"),
        ("distributed_type: MEGATRON_LM\n", "found distributed_type MEGATRON_LM"),
        ("distributed_type: MULTI_GPU\nnum_machines: 2\n", "found num_machines 2"),
        ("distributed_type: MULTI_GPU\nnum_processes: many\n", "found num_processes 'many'"),
        ("compute_environment: AMAZON_SAGEMAKER\n", "AMAZON_SAGEMAKER"),
        ("distributed_type: FSDP\nfsdp_config: {}\n", "found fsdp_config.fsdp_version 1 in .*; wanted 2"),
        (
            "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\n",
            "wanted deepspeed_config.zero3_save_16bit",
        ),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {gradient_accumulation_steps: 8}\n", "accumulation_steps 8"),
        (
            "distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: ds.json}\n",
            r"found deepspeed_config.deepspeed_config_file ds.json in .*; wanted its settings here",
        ),
        ("distributed_type: MULTI_GPU\ngpu_ids: 0\n", "found gpu_ids 0 in .*; wanted all; CUDA_VISIBLE_DEVICES"),
        ("distributed_type: MULTI_CPU\nnum_processes: true\n", "found num_processes True"),
        ("distributed_type: FSDP\nfsdp_config: 2\n", "found fsdp_config 2 in .*; wanted settings by name"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: [zero]\n", "found deepspeed_config .'zero'."),
        ("distributed_type: FSDP\nuse_cpu: true\nfsdp_config: {fsdp_version: 2}\n", "found FSDP with use_cpu"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AccelerateConfigError, match=message) as caught:
        read_accelerate_config(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_deepspeed_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if importlib.util.find_spec("deepspeed"):
        pytest.skip("it is installed here")
    path = tmp_path / "file.yaml"
    path.write_text("distributed_type: DEEPSPEED\n")
    with pytest.raises(AccelerateConfigError, match="pip install deepspeed"):
        read_accelerate_config(path)
