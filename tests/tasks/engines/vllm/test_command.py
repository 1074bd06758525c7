"""What vLLM is started with: what the config says, no secret on a command line, nothing open to others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.engines.vllm.available import check_vllm
from tasks.engines.vllm.command import (
    ServerSpec,
    adapter_path,
    image_command,
    max_lora_rank,
    server_command,
    server_environment,
)
from tasks.engines.vllm.config import VllmConfig


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def adapter(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    return folder


def test_a_server_listens_on_loopback_and_its_key_is_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    spec = ServerSpec(Path("/models/qwen"), gpus=("0", "1"))
    command = server_command(spec, VllmConfig(), 8123)
    assert (value_of(command, "--host"), value_of(command, "--port")) == ("127.0.0.1", "8123")
    environment = server_environment(spec, "s3cret")
    assert environment["VLLM_API_KEY"] == "s3cret" and "s3cret" not in " ".join(command)
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    on_the_cpu = server_environment(ServerSpec(Path("/models/qwen")), "s3cret")
    assert on_the_cpu["CUDA_VISIBLE_DEVICES"] == ""  # else a vLLM for CUDA would take all that there are
    assert value_of(command, "--tensor-parallel-size") == "2"


def test_the_config_is_passed_on() -> None:
    config = VllmConfig(
        dtype="float16",
        max_model_len=4096,
        gpu_memory_utilization=0.8,
        prefix_caching=False,
        extra_args=("--swap-space", "1"),
    )
    command = server_command(ServerSpec(Path("/m"), gpus=("3",), memory_share=0.5), config, 1)
    assert value_of(command, "--dtype") == "float16"
    assert value_of(command, "--max-model-len") == "4096"
    assert value_of(command, "--gpu-memory-utilization") == "0.4"
    assert "--no-enable-prefix-caching" in command
    assert command[-2:] == ["--swap-space", "1"]


def test_adapters_get_the_room_that_they_need(tmp_path: Path) -> None:
    adapters = {"coder": adapter(tmp_path / "a", r=9), "tester": adapter(tmp_path / "b", rank_pattern={"q_proj": 48})}
    command = server_command(ServerSpec(Path("/m"), adapters), VllmConfig(), 1)
    assert (value_of(command, "--max-loras"), value_of(command, "--max-lora-rank")) == ("3", "64")
    on_gpu = server_command(ServerSpec(Path("/m"), adapters, gpus=("0",)), VllmConfig(), 1)
    assert value_of(on_gpu, "--max-loras") == "2"
    assert "--enable-lora" not in server_command(ServerSpec(Path("/m")), VllmConfig(), 1)


@pytest.mark.parametrize(("config", "why"), [({"r": 1024}, "rank 1024"), ({"use_dora": True}, "DoRA")])
def test_an_adapter_that_vllm_cannot_serve_is_one_line(tmp_path: Path, config: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=rf"vLLM cannot serve the adapter big in .*: {why}.*in_process") as caught:
        max_lora_rank({"big": adapter(tmp_path / "big", **config)})
    assert "\n" not in str(caught.value)


def test_an_image_sees_only_the_folders_that_it_serves_and_publishes_on_loopback(tmp_path: Path) -> None:
    spec = ServerSpec(Path("/models/qwen"), {"coder": adapter(tmp_path / "coder")}, gpus=("0",))
    config = VllmConfig(image="vllm/vllm-openai:v0.32.0")
    command = image_command(spec, config, 8123, "winnow-1")
    assert value_of(command, "--publish") == "127.0.0.1:8123:8000"
    volumes = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert volumes == ["/models/qwen:/model:ro", f"{tmp_path}/coder:/adapters/coder:ro"]
    assert adapter_path("coder", spec, config) == "/adapters/coder"
    assert command.index("vllm/vllm-openai:v0.32.0") < command.index("--model")
    assert value_of(command, "--model") == "/model"
    assert value_of(command, "--gpus") == '"device=0"'


def test_where_it_cannot_be_started_that_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"engine\.vllm\.image: docker is not here"):
        check_vllm(VllmConfig(image="vllm/vllm-openai"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"engine\.kind: vLLM is not installed in this environment"):
        check_vllm(VllmConfig())
