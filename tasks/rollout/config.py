"""What is collected, how replies are drawn, and which of them are kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.engines.base import Sampling


class CollectConfig(BaseModel):
    """Playing episodes and keeping some of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_episodes: int = Field(100, ge=1, description="Episodes to play.")
    rollouts_per_problem: int = Field(1, ge=1, description="Episodes of each problem; more of them give a pass@k.")
    seed: int = Field(0, ge=0, description="Seed of the sampling. Another seed is another collection.")
    batch: str | None = Field(
        None, description="Names a fresh collection, e.g. a date. On a schedule: the scheduled date."
    )
    temperature: float = Field(1.0, ge=0, le=5, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling: smallest set of tokens with this probability.")
    top_k: int = Field(0, ge=0, description="Sample among this many likeliest tokens; 0 is no limit.")
    max_tokens: int = Field(512, ge=1, description="Most tokens in one reply; a longer one is truncated and not kept.")
    max_error_rate: float = Field(
        0.05, ge=0, le=1, description="Share of episodes that may end in an error of the env before the run fails."
    )
    data_dir: Path | None = Field(None, description="Folder of data files and journals. Default: ./sft_data_<env>.")
    only_success: bool = Field(True, description="Keep only turns that succeeded; applied after playing.")
    collect_mode: Literal["env", "agent"] = Field(
        "env",
        description="What success means when keeping: env, all turns of an episode that succeeded; "
        "agent, all turns of an agent whose last turn in the episode succeeded.",
    )
    keep_truncated: bool = Field(False, description="Keep replies that were cut off at max_tokens.")
    agent_ratios: dict[str, float] | None = Field(
        None, description="Share of the kept turns per agent, e.g. code_generator: 0.7; the surplus is dropped."
    )

    @property
    def sampling_seed(self) -> int:
        """Seed of the replies: another batch draws other ones, else each night would repeat the first."""
        if self.batch is None:
            return self.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed} {self.batch}".encode()).digest()[:6], "big")

    def sampling(self) -> Sampling:
        """How replies are drawn, for the engine."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens)
