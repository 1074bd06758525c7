"""How vLLM is started. Imports nothing heavy: the command line shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class VllmConfig(BaseModel):
    """For engine.kind=vllm: the server that the run starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor_parallel: int = Field(
        1,
        ge=1,
        le=64,
        title="GPUs of one copy",
        description="GPUs that hold one copy of the model together; engine.num_gpus / this many copies.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", title="Number format", description="Number format of weights and activations; auto: the model's own."
    )
    max_model_len: int | None = Field(
        None,
        ge=1,
        title="Most tokens of a conversation",
        description="Most tokens of a prompt and its reply. Default: the model's; less saves memory.",
    )
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, title="GPU memory", description="Share of each GPU's memory for weights and cache together."
    )
    prefix_caching: bool = Field(True, description="Compute what prompts share at their beginning only once.")
    image: str | None = Field(
        None, description="A container image with vLLM, e.g. vllm/vllm-openai:latest. Default: vLLM as installed here."
    )
    extra_args: tuple[str, ...] = Field((), description="More arguments for vLLM's server, as on its command line.")
    start_timeout_s: float = Field(
        900.0,
        gt=0,
        title="Start timeout (seconds)",
        description="Seconds until the server must answer; the first start of a model compiles kernels.",
    )
    max_restarts: int = Field(3, ge=0, description="How often a server that died is started again in one collection.")
