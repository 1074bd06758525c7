"""How much is played to compare the base model with the adapter, and how often that is done."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """Playing held-out problems before and after. What is not here, such as the length of replies, is as in collect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_problems: int = Field(200, ge=0, description="Held-out problems to play; 0 leaves the evaluation out.")
    rollouts_per_problem: int = Field(1, ge=1, description="Episodes of each held-out problem, on either side.")
    temperature: float = Field(1.0, ge=0, le=5, description="Sampling temperature, of all roles; 0 is greedy.")
    seed: int = Field(0, ge=0, description="Seed of the sampling, of all roles, the same before and after.")
    adapter_dir: Path | None = Field(
        None, description="For evaluate_only: the folder of the adapter, or a -promoted one. Default: train.output_dir."
    )


class IterateConfig(BaseModel):
    """Rounds of collecting, training and comparing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_rounds: int = Field(3, ge=1, le=100, description="Rounds to play.")
