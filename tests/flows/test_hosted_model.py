"""A model on a server: nothing here needs its files, and what is wrong with it is told before anything is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.collect_only import collect_only
from flows.config import RunConfig
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_adapters, check_collecting, check_training
from flows.settings import ConfigError, read_config
from tasks.engines.base import EngineError
from tasks.engines.model_files import ModelNotFoundError
from tasks.rollout.collection import Collection
from tests.tasks.engines.openai_http.fault_server import MODEL, FaultServer


def hosted(url: str, *flags: str) -> RunConfig:
    """A config for a machine without any model."""
    return read_config(RunConfig, ["--env.name", "math_env", "--engine.base_url", url, *flags])


def test_the_model_that_the_server_has_is_played_and_the_default_one_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with FaultServer() as server:
        config = with_model_at_hand(hosted(server.url), is_trained=False)
        check_collecting(config)
        assert config.engine.model == config.resolved()["engine"]["model"] == "some-model"
        assert with_model_at_hand(hosted(server.url)).model.path == "starter"
    assert capsys.readouterr().err.count("model.path was not given") == 1
    with pytest.raises(ModelNotFoundError):
        check_training(hosted(server.url, "--model.path", "./nowhere", "--evaluate.num_problems", "0"))


def test_a_wrong_address_or_key_fails_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(key="right") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        for check in (check_collecting, with_model_at_hand):
            with pytest.raises(ValueError, match="401 Unauthorized"):
                check(hosted(server.url))
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        with pytest.raises(ValueError, match="404 Not Found"):
            check_collecting(hosted(server.url + "/v1", "--engine.model", "some-model"))
    with pytest.raises(EngineError, match="Cannot connect"):
        check_collecting(hosted(server.url))


@pytest.mark.parametrize("engine", [{"base_url": "http://me:s3cret@host/v1"}, {"api_key_env": "sk-s3cret"}])
def test_a_secret_in_the_wrong_place_is_not_shown_again(engine: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({"engine": engine})
    assert "s3cret" not in str(caught.value)


def test_what_is_trained_cannot_be_compared_on_a_server_and_that_is_said_before_it_is_trained() -> None:
    with (
        FaultServer() as server,
        pytest.raises(ValueError, match=r"evaluate.num_problems: .* cannot be loaded into the server"),
    ):
        check_training(hosted(server.url))


def test_adapters_are_evaluated_only_on_a_server_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    tuned = {**MODEL, "id": "shared_model", "parent": "some-model"}
    with FaultServer(models=[MODEL, tuned]) as server:
        folders = check_adapters(hosted(server.url, "--evaluate.adapter_dir", str(tmp_path)))
        assert folders == {"shared_model": tmp_path}
    with FaultServer() as server, pytest.raises(ValueError, match=f"the adapter in {tmp_path} cannot be loaded into"):
        check_adapters(hosted(server.url, "--evaluate.adapter_dir", str(tmp_path)))


def identity(url: str, *flags: str) -> Any:
    return Collection.for_training(hosted(url, *flags).play, {}).identity


def test_episodes_belong_to_the_name_of_the_model_and_its_sampling_wherever_the_server_is() -> None:
    named = identity("http://127.0.0.1:9/v1", "--engine.model", "some-model")
    assert named["model"] == "openai_http some-model"
    with FaultServer() as server:
        assert identity(server.url) == named
    url = ("http://127.0.0.1:9/v1", "--engine.model", "some-model")
    for changed in (("--collect.min_p", "0.1"), ("--collect.stop", '["</answer>", "a, b"]')):
        assert identity(*url, *changed) != named
    assert identity(*url, *changed)["sampling"]["stop"] == ["</answer>", "a, b"]


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"collect\.stop"):
        read_config(RunConfig, ["--collect.stop", '[""]'])


def test_collecting_from_a_server_needs_no_model_here(run_folder: Path) -> None:
    with FaultServer() as server:
        flags = ("--collect.num_episodes", "6", "--collect.only_success", "false", "--env.max_turns", "1")
        report = collect_only(hosted(server.url, *flags))
        assert (report.finished, report.model, report.engine) == (6, "some-model", "openai_http")
        asked = len(server.chats)
        assert "collect" in collect_only(hosted(server.url, *flags)).cached
        assert len(server.chats) == asked >= 6
    assert list((run_folder / "sft_data_math").glob("sft_data_*.jsonl"))
