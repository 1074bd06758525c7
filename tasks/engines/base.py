"""The seam between the rollout loop and whatever answers chat requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


class ModelConfig(BaseModel):
    """The model that plays and is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        "Qwen/Qwen3-1.7B",
        description="A folder with a Hugging Face model, a hub name, or `starter` for the tiny included policy.",
    )
    trust_remote_code: bool = Field(False, description="Let the model's repository run its own Python code here.")


class EngineConfig(BaseModel):
    """What runs the model while episodes are played. Nothing here changes what is sampled, only how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["auto", "in_process", "scripted"] = Field(
        "auto", description="auto and in_process: transformers in this process. scripted: a function, for tests."
    )
    script: str | None = Field(None, description="For kind=scripted: module:function, called with each request.")
    num_gpus: int | None = Field(None, ge=0, description="GPUs to use. Default: all that are visible.")
    max_concurrency: int = Field(64, ge=1, le=4096, description="Most requests in flight at once.")
    timeout_s: float = Field(600.0, gt=0, description="Seconds that one request may take before the run stops.")


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_tokens: int = 512


@dataclass(frozen=True)
class ChatRequest:
    """One request for one reply."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    """The same request with the same seed gets the same reply, whatever else is asked at the time (up to rounding)."""
    adapter: str | None = None
    """Name of the adapter to apply, as given to the engine; None is the bare model."""


@dataclass(frozen=True)
class Completion:
    """One reply and why it ended."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: Sequence[int] | None = None
    reply_ids: Sequence[int] | None = None
    """Token ids of the reply, the end-of-turn token included, where the engine knows them."""


class EngineError(RuntimeError):
    """The engine failed: an infrastructure fault. It stops the run loudly; a later run resumes."""


class Engine(ABC):
    """Answers chat requests between `start` and `stop`. `async with engine:` does both."""

    name: str
    """Stands in the records as policy_name's owner and in reports: `in_process`, `scripted`, ..."""

    @abstractmethod
    async def start(self) -> None:
        """Load what is needed to answer.

        Raises:
            EngineError: it cannot, with what to do about it.
            ValueError: the model or an adapter is not fit for it, which no second try mends.
        """

    @abstractmethod
    async def generate(self, request: ChatRequest) -> Completion:
        """Answer one request. Many may be awaited at once.

        Raises:
            EngineError: no answer can be had.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Free everything that `start` took. Safe to call twice, and after a failed start."""

    async def __aenter__(self) -> Engine:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
