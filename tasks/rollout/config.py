"""What is collected, how replies are drawn, and which of them are kept."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from tasks.engines.base import Sampling

Temperature = Annotated[float, Field(ge=0, le=5)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=0)]
MinP = Annotated[float, Field(ge=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1)]
Stop = tuple[Annotated[str, StringConstraints(min_length=1)], ...]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RoleSampling(BaseModel):
    """How the replies of one role are drawn. What is not given is as for all roles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Temperature | None = Field(None, description="As collect.temperature, for this role.")
    top_p: TopP | None = Field(None, title="Top p", description="As collect.top_p, for this role.")
    top_k: TopK | None = Field(None, title="Top k", description="As collect.top_k, for this role.")
    min_p: MinP | None = Field(None, title="Min p", description="As collect.min_p, for this role.")
    max_tokens: MaxTokens | None = Field(None, description="As collect.max_tokens, for this role.")
    stop: Stop | None = Field(None, title="Stop texts", description="As collect.stop, for this role.")
    seed: Seed | None = Field(None, description="As collect.seed, for this role.")


class CollectConfig(BaseModel):
    """Playing episodes and keeping some of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_episodes: int = Field(100, ge=1, description="Episodes to play.")
    rollouts_per_problem: int = Field(1, ge=1, description="Episodes of each problem; more of them give a pass@k.")
    enough_successes: int | None = Field(
        None,
        ge=1,
        description="Stop trying a problem that was solved this often, and spend what that saves on problems that were "
        "solved less often but at least once. Default: try all problems equally often.",
    )
    seed: Seed = Field(0, description="Seed of the sampling. Another seed is another collection.")
    batch: str | None = Field(
        None, description="Names a fresh collection, e.g. a date. On a schedule: the scheduled date."
    )
    temperature: Temperature = Field(1.0, description="Sampling temperature; 0 is greedy.")
    top_p: TopP = Field(
        1.0, title="Top p", description="Nucleus sampling: smallest set of tokens with this probability."
    )
    top_k: TopK = Field(
        0,
        title="Top k",
        description="Sample among this many likeliest tokens; 0 is no limit. OpenAI's own API takes neither this nor "
        "min_p; vLLM, SGLang, llama.cpp and Ollama do.",
    )
    min_p: MinP = Field(
        0.0, title="Min p", description="Leave out tokens with less than this share of the likeliest one's probability."
    )
    stop: Stop = Field(
        (), title="Stop texts", description="Texts that end a reply, which then holds what stands before them."
    )
    max_tokens: MaxTokens = Field(512, description="Most tokens in one reply; a longer one is truncated and not kept.")
    by_role: dict[str, RoleSampling] = Field(
        {},
        title="Sampling by role",
        description="What is different for single roles, e.g. tool_generator: {temperature: 0.2}. For each role "
        "temperature, top_p, top_k, min_p, max_tokens, stop and seed; what is not given is as for all.",
    )
    max_error_rate: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of episodes that may end in an error of the env, or at engine.episode_timeout_s, before the "
        "run fails.",
    )
    shards: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Parts that the owed episodes are dealt to, each played by one worker with an engine of its own. "
        "More than there are workers balances the load. More than 1 needs runner ray.",
    )
    runner: Literal["local", "ray"] = Field(
        "local",
        description="Where shards are played: local, in the run's own process; ray, on the workers of the Ray cluster "
        "that RAY_ADDRESS names or that runs on this machine. Each takes engine.num_gpus GPUs (default: one, if there "
        "are any) and one CPU.",
    )
    storage: str | None = Field(
        None,
        description="An object store that keeps journals and data files besides data_dir, for machines that share no "
        "folder: s3://bucket/prefix, or whatever fsspec knows. Credentials come from the environment. Default: none; "
        "with runner ray, data_dir then has to be a folder that all machines share.",
    )
    max_success_drop: Share = Field(
        0.1,
        description="For nights, which have a batch: how far the success rate may lie below the mean of the last seven "
        "before a warning and the event winnow.success-rate.fell; 0.1 is 10 points.",
    )
    data_dir: Path | None = Field(None, description="Folder of data files and journals. Default: ./sft_data_<env>.")
    adapter_dir: Path | None = Field(
        None,
        description="Collect with the trained model in this folder. A -promoted folder stands for what is promoted in "
        "it: the bare model as long as nothing is. Default: the bare model.",
    )
    only_success: bool = Field(True, description="Keep only turns that succeeded; applied after playing.")
    collect_mode: Literal["env", "agent"] = Field(
        "env",
        title="Whose success",
        description="What success means when keeping: env, all turns of an episode that succeeded; "
        "agent, all turns of an agent whose last turn in the episode succeeded.",
    )
    turns: Literal["all", "last", "until_success"] = Field(
        "all",
        title="Turns to keep",
        description="Which turns of an agent in a kept episode are trained on: all; last, its last turn alone; "
        "until_success, those up to the first that succeeded, for an env that judges each turn.",
    )
    keep_truncated: bool = Field(False, description="Keep replies that were cut off at max_tokens.")
    max_per_problem: int | None = Field(
        None, ge=1, description="Most episodes of one problem that are trained on. Default: no limit."
    )
    prefer: Literal["shortest", "first", "random"] = Field(
        "shortest",
        title="Episodes to prefer",
        description="Which episodes of a problem stay where max_per_problem has too many: shortest, those with the "
        "fewest tokens to train on; first, the lowest rollouts; random, by a draw that depends on collect.seed.",
    )
    agent_ratios: dict[str, Share] | None = Field(
        None, description="Share of the kept turns per agent, e.g. code_generator: 0.7; the surplus is dropped."
    )

    @field_validator("storage")
    @classmethod
    def _storage_is_an_object_store_and_holds_no_secret(cls, url: str | None) -> str | None:
        if url is None:
            return url
        protocol, separator, place = url.partition("://")
        if not separator or not place or protocol in ("file", "local"):
            raise ValueError(
                "collect.storage: wanted an object store, e.g. s3://bucket/prefix; a folder that machines share, e.g. "
                "by NFS, is given as collect.data_dir"
            )
        if {"@", "?"} & set(place):
            raise ValueError(
                "collect.storage: it holds a user, a password or a query; leave them out, and give the credentials by "
                "the environment"
            )
        return url

    @model_validator(mode="after")
    def _several_shards_have_workers(self) -> Self:
        if self.shards > 1 and self.runner == "local":
            raise ValueError(
                f"collect.shards: found {self.shards} with collect.runner local, where one process plays all; "
                "wanted collect.runner ray, or 1"
            )
        return self

    @model_validator(mode="after")
    def _enough_can_be_reached_and_is_about_success(self) -> Self:
        if self.enough_successes is None:
            return self
        if self.enough_successes > self.rollouts_per_problem:
            raise ValueError(
                f"collect.enough_successes: found {self.enough_successes}; wanted at most "
                f"collect.rollouts_per_problem, which is {self.rollouts_per_problem}; raise that one"
            )
        if not self.only_success:
            raise ValueError(
                "collect.enough_successes: found with collect.only_success false, which keeps failures too; "
                "leave one of them out"
            )
        return self

    def sampling_seed(self, role: str) -> int:
        """Seed of a role's replies: another batch draws other ones, else each night would repeat the first."""
        seed = self._seed_of(role)
        if self.batch is None:
            return seed
        return int.from_bytes(hashlib.sha256(f"{seed} {self.batch}".encode()).digest()[:6], "big")

    def sampling(self, role: str | None = None) -> Sampling:
        """How the replies of a role are drawn, for the engine; without one, how all are that nothing is said of."""
        sampling = Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, self.min_p, self.stop)
        if role not in self.by_role:
            return sampling
        return replace(sampling, **self.by_role[role].model_dump(exclude={"seed"}, exclude_none=True))

    def what_differs(self) -> dict[str, dict[str, Any]]:
        """Of each role that is sampled in another way than the rest, what is different, as plain data."""
        general = asdict(self.sampling()) | {"seed": self.seed}
        of_roles = {role: asdict(self.sampling(role)) | {"seed": self._seed_of(role)} for role in self.by_role}
        differing = {
            role: {name: value for name, value in own.items() if value != general[name]}
            for role, own in of_roles.items()
        }
        return {role: own for role, own in differing.items() if own}

    def with_all_roles_at(self, temperature: float, seed: int) -> Self:
        """The same with one temperature and seed for all roles."""
        changes = {"temperature": temperature, "seed": seed}
        by_role = {role: own.model_copy(update=dict.fromkeys(changes)) for role, own in self.by_role.items()}
        return self.model_copy(update={**changes, "by_role": by_role})

    def _seed_of(self, role: str) -> int:
        own = self.by_role.get(role)
        return self.seed if own is None or own.seed is None else own.seed
