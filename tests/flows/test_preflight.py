"""What is settled before a run: the model that can be had here, and the adapter that belongs to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.config import QuickTestConfig, RunConfig
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_adapters, check_collecting, check_training
from flows.settings import read_config

DEFAULT_MODEL = "Qwen/Qwen3-1.7B"


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, which is returned, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def adapter_of(base: str, folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def evaluation(model: str, adapter: Path) -> RunConfig:
    return read_config(RunConfig, ["--model.path", model, "--evaluate.adapter_dir", str(adapter)])


def test_without_a_hub_the_included_policy_stands_in_for_the_default_model(
    no_hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_model_at_hand(read_config(RunConfig, ["--env.name", "math_env"]))
    assert config.model.path == "starter"
    assert config.resolved()["model"]["path"] == "starter"
    assert capsys.readouterr().err == (
        "model.path was not given and Qwen/Qwen3-1.7B cannot be had here (no hub): "
        "using the included `starter` policy\n"
    )


def test_what_a_training_cannot_be_launched_with_is_refused_before_anything_is_collected(tmp_path: Path) -> None:
    common = ["--model.path", "starter", "--collect.data_dir", str(tmp_path), "--train.num_gpus", "0"]
    sharded = tmp_path / "fsdp.yaml"
    sharded.write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n")
    for name, value, message in (
        ("accelerate_config", str(tmp_path / "none.yaml"), "cannot read"),
        ("accelerate_config", str(sharded), "shards the model over GPUs"),
        ("quantization", "4bit", "4bit needs a GPU, and none is used here"),
    ):
        with pytest.raises(ValueError, match=message):
            check_training(read_config(RunConfig, [*common, f"--train.{name}", value]))


def test_a_model_that_was_named_is_never_replaced(no_hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_config(RunConfig, ["--model.path", DEFAULT_MODEL])
    assert with_model_at_hand(config) is config
    assert with_model_at_hand(QuickTestConfig()).model.path == "starter"
    assert not capsys.readouterr().err


def test_a_default_model_in_the_cache_is_played_without_a_hub(no_hub: Path) -> None:
    snapshot = no_hub / "models--Qwen--Qwen3-1.7B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = no_hub / "models--Qwen--Qwen3-1.7B" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    assert with_model_at_hand(RunConfig()).model.path == DEFAULT_MODEL


def test_an_adapter_of_another_model_is_refused_with_the_model_to_pass(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapter_of(DEFAULT_MODEL, tmp_path / "adapter")
    with pytest.raises(ValueError, match=f"was trained on {DEFAULT_MODEL}.*--model.path {DEFAULT_MODEL}") as caught:
        check_adapters(evaluation(str(tiny_model), adapter))
    assert str(tiny_model) in str(caught.value)


@pytest.mark.parametrize("base", ["{model}", "/gone/from/here/tiny"])
def test_an_adapter_of_the_model_passes_wherever_the_model_was(tiny_model: Path, tmp_path: Path, base: str) -> None:
    adapter = adapter_of(base.format(model=tiny_model), tmp_path / "adapter")
    assert check_adapters(evaluation(str(tiny_model), adapter)) == {"shared_model": adapter}


@pytest.mark.parametrize("check", [check_collecting, check_training])
def test_a_template_argument_that_the_model_does_not_take_fails_before_anything_else(
    check: Callable[[RunConfig], None], thinking_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--env.name", "math_env", "--model.path", str(thinking_model), "--model.chat_template_args.mood"]
    check(read_config(RunConfig, [*flags, "calm"]))
    with pytest.raises(ValueError, match="refuses mood='bold': TemplateError: mood is calm"):
        check(read_config(RunConfig, [*flags, "bold"]))
