"""The config of engines: what means which engine, and no key in it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.engines import open_engine
from tasks.engines.config import EngineConfig, ModelConfig

URL = "http://127.0.0.1:8000/v1"


def refusal(**settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        EngineConfig.model_validate(settings)
    return str(caught.value)


def test_a_base_url_means_openai_http_unless_another_kind_is_named() -> None:
    assert EngineConfig.model_validate({"base_url": URL}).kind == "openai_http"
    assert EngineConfig.model_validate({"base_url": URL, "kind": "auto"}).kind == "openai_http"
    assert EngineConfig.model_validate({"base_url": URL, "kind": "in_process"}).kind == "in_process"
    assert EngineConfig().kind == "auto"


def test_openai_http_needs_a_base_url_and_a_model_name_does_too() -> None:
    with pytest.raises(ValueError, match=r"engine.base_url: not given") as caught:
        open_engine(ModelConfig(), EngineConfig(kind="openai_http"))
    assert "\n" not in str(caught.value)
    assert "engine.model: found 'gpt' without engine.base_url" in refusal(model="gpt")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:99999/v1", "http://[::1/v1", "http://a b/v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert "engine.base_url: it is no http or https address" in refusal(base_url=url)


@pytest.mark.parametrize("url", ["https://user:s3cret@host/v1", "https://s3cret@host/v1", "http://host/v1?key=s3cret"])
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    said = refusal(base_url=url)
    assert "engine.base_url: it holds a user, a password or a query" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("key", ["sk-abcdef", "abcDEF123", "", "KEY NAME"])
def test_a_key_in_place_of_the_name_of_its_variable_is_refused_without_showing_it(key: str) -> None:
    said = refusal(api_key_env=key)
    assert "the key itself must stand in no config" in said
    assert not key or key not in said
