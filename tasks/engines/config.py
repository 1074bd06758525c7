"""What the model is and what runs it: the two parts of the config tree that engines own."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from tasks.engines.vllm.config import VllmConfig

KEY_NAME = "^[A-Z_][A-Z0-9_]{0,63}$"
_NOT_FOR_TEMPLATES = {
    *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs"),
}
"""What is not the user's to tell a chat template, or is taken by what renders it."""


class ModelConfig(BaseModel):
    """The model that plays and is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        "Qwen/Qwen3-1.7B",
        title="Folder or name",
        description="A folder with a Hugging Face model, a hub name, or `starter` for the tiny included policy.",
    )
    trust_remote_code: bool = Field(False, description="Let the model's repository run its own Python code here.")
    chat_template_args: dict[str, JsonValue] = Field(
        {},
        description="What the model's chat template is told besides the messages, in playing and training alike, e.g. "
        "enable_thinking: false for Qwen3. A server must take chat_template_kwargs, as vLLM, SGLang and llama.cpp do.",
    )

    @field_validator("chat_template_args")
    @classmethod
    def _template_is_told_only_what_it_asks_for(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in arguments:
            if name in _NOT_FOR_TEMPLATES:
                raise ValueError(
                    f"model.chat_template_args.{name}: this is set by what renders the prompts; leave it out, and give "
                    "arguments of the model's own template, e.g. enable_thinking"
                )
        return arguments


class EngineConfig(BaseModel):
    """What runs the model while episodes are played. Where it runs a model that lies here, nothing in here changes what
    is sampled, only how fast.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Literal["auto", "in_process", "openai_http", "vllm", "scripted"] = Field(
        "auto",
        title="Which engine",
        description="in_process: transformers in this process. openai_http: a server at base_url. vllm: a vLLM server "
        "that the run starts and stops. scripted: a function, for tests. auto: openai_http where base_url is given, "
        "vllm where it is installed and there is a GPU, else in_process.",
    )
    base_url: str | list[str] | None = Field(
        None,
        title="Base URL",
        description="For kind=openai_http: address of an OpenAI-compatible server, as OpenAI's clients take it, e.g. "
        "http://127.0.0.1:8000/v1; or a list of those of several that serve the same model.",
    )
    model: str | None = Field(
        None,
        description="For kind=openai_http: the model to ask for. Default: the only one that the server lists. Training "
        "takes model.path.",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        title="API key variable",
        json_schema_extra={"pattern": KEY_NAME},
        description="For kind=openai_http: name of the environment variable with the server's key.",
    )
    vllm: VllmConfig = Field(VllmConfig(), title="vLLM", description="For kind=vllm: how the server is started.")
    script: str | None = Field(None, description="For kind=scripted: module:function, called with each request.")
    num_gpus: int | None = Field(None, ge=0, title="GPUs", description="GPUs to use. Default: all that are visible.")
    max_concurrency: int = Field(64, ge=1, le=4096, description="Most requests in flight at once.")
    timeout_s: float = Field(
        600.0,
        gt=0,
        title="Request timeout (seconds)",
        description="Seconds that one request may take before the run stops. openai_http tries again within them, and "
        "gives one attempt half of them. They begin anew when a vLLM server has been started again.",
    )
    episode_timeout_s: float | None = Field(
        None,
        gt=0,
        title="Episode timeout (seconds)",
        description="Seconds that one episode may take in all, from its first request on, without the time in which it "
        "only waits for others to make place, or for vLLM to be started again; then it ends as an error. Default: no "
        "limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _an_address_means_openai_http(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("base_url") and given.get("kind", "auto") == "auto":
            return {**given, "kind": "openai_http"}
        return given

    @field_validator("base_url")
    @classmethod
    def _addresses_are_some_and_hold_no_secret(cls, given: str | list[str] | None) -> str | list[str] | None:
        for url in [given] if isinstance(given, str) else given or []:
            _check_address(url)
        return given

    @field_validator("api_key_env")
    @classmethod
    def _key_is_named_and_not_given(cls, name: str) -> str:
        if not re.fullmatch(KEY_NAME, name):
            raise ValueError(
                "engine.api_key_env: wanted the name of an environment variable, in capitals, e.g. OPENAI_API_KEY; "
                "the key itself must stand in no config"
            )
        return name

    @property
    def base_urls(self) -> list[str]:
        """The addresses of the servers, if there are any."""
        return [self.base_url] if isinstance(self.base_url, str) else list(dict.fromkeys(self.base_url or []))

    @model_validator(mode="after")
    def _a_model_has_a_server(self) -> Self:
        if self.kind == "auto" and self.model is not None:
            raise ValueError(
                f"engine.model: found {self.model!r} without engine.base_url; it names a model of that server, while a "
                "model that lies here is named by model.path"
            )
        return self


def _check_address(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ValueError("engine.base_url: it is no http or https address; wanted one like http://127.0.0.1:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "engine.base_url: it holds a user, a password or a query; leave them out, and give the key by the "
            "environment variable that engine.api_key_env names"
        )
