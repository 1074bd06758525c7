"""What an environment is: the problem it poses, the asks it makes, and the verdict that it reaches.

An env speaks text and never meets a model. One instance plays one episode of one problem and is then thrown away.
Whoever plays it (the rollout loop, a test) drives the generator that `play` returns: it yields lists of `Ask`, is sent
the replies in the same order, and ends when the game is over.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from envs.sandbox.base import Sandbox

Split = Literal["starter", "train", "heldout"]


class Message(TypedDict):
    """One chat message, in the form that every chat model takes."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to solve. Subclasses add what the judge needs; only `statement` may ever reach a prompt."""

    statement: str
    content: str = ""
    """What makes two problems the same, whatever their wording. Empty: the statement, case and spacing ignored."""
    difficulty: int = 0
    """1 is the easiest; 0 means unknown."""

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits that name the problem by its content; the journal's key and the splits rest on it."""
        content = self.content or " ".join(self.statement.lower().split())
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @cached_property
    def digest(self) -> str:
        """Hash of everything in the problem, the judge's part included: a changed answer is a changed problem."""
        return hashlib.sha256(json.dumps(_as_json(asdict(self)), sort_keys=True, default=repr).encode()).hexdigest()


@dataclass
class Ask:
    """One request to one role, later with what its reply earned. Created by `Env.ask`."""

    role: str
    messages: list[Message]
    turn_idx: int
    """How many turns this role had before, so 0 for its first."""
    reward: float | None = None
    success: bool | None = None
    trained: bool = True
    """Whether the reply may be trained on; false for an agent that only takes part."""


Play = Generator[list[Ask], list[str], None]


class EnvOptions(BaseModel):
    """Settings that one env alone knows. An env that has some sets `Env.Options` to its own subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def identity(self) -> dict[str, Any]:
        """What of these settings changes an episode, as JSON data: a path, for one, by what is in the file."""
        return self.model_dump(mode="json")


def short_name(env: str) -> str:
    """`code` for code_env, `ClockEnv` for my_envs.clock_env:ClockEnv."""
    return env.rpartition(":")[2].rpartition(".")[2].removesuffix("_env")


def _registered_or_dotted(schema: dict[str, Any]) -> None:
    """Lets a form offer the registered names, and take any other."""
    from envs import ENV_CLASS_MAPPING  # it imports this module

    del schema["type"]
    schema["anyOf"] = [
        {"title": "registered", "type": "string", "enum": sorted(ENV_CLASS_MAPPING)},
        {"title": "module:Class", "type": "string", "pattern": "[:.]"},
    ]


class EnvConfig(BaseModel):
    """Which environment is played, on which problems, by which roles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "code_env",
        title="Which environment",
        description="A registered environment (code_env, math_env) or module:Class.",
        json_schema_extra=_registered_or_dotted,
    )
    dataset: str | None = Field(
        None,
        description="Problems to collect and train on: a .jsonl, .jsonl.gz or .parquet file, or a hub dataset name. "
        "Default: the env's built-in train split.",
    )
    benchmark: str | None = Field(
        None,
        description="Held-out problems, in the same forms. Default: the built-in held-out split or, with a dataset, "
        "the tenth of it that is never collected.",
    )
    max_turns: int = Field(3, ge=1, le=100, description="Most turns that one role has in an episode.")
    roles: tuple[str, ...] | None = Field(None, description="The roles that play, in order. Default: the env's own.")
    timeout_s: float = Field(
        300.0,
        gt=0,
        title="Timeout (seconds)",
        description="Most seconds that the env's own code may take between two asks, sandbox runs included; an episode "
        "that takes longer ends as an error.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of this env alone, e.g. world: sokoban for stateful_env, or top_k: 5 for search_env.",
    )

    @property
    def short_name(self) -> str:
        """`code` for code_env: the name in folder names such as ./sft_data_code."""
        return short_name(self.name)


class Env(ABC):
    """The rules of a game for one or more roles. Subclass it, write `play`, set `success`.

    `play` is a generator with local variables for state. It ends by what the players can know (public tests, agreement,
    a well-formed final answer, the turn limit), never by the hidden verdict. A reply in the wrong form is data to be
    answered or scored, not an exception.
    """

    roles: ClassVar[tuple[str, ...]]
    """Who plays unless the config says otherwise."""
    seatings: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Every set of roles that this env can be played with; empty: only `roles`."""
    Options: ClassVar[type[EnvOptions]] = EnvOptions

    success: bool | None = None
    """The episode's verdict. `play` must set it before it ends."""

    def __init__(self, problem: Any, config: EnvConfig, sandbox: Sandbox) -> None:
        self.problem = problem
        self.config = config
        self.options = self.Options.model_validate(config.options)
        self.sandbox = sandbox
        self.seats = self.seats_for(config)
        self.asks: list[Ask] = []
        self.metadata: dict[str, Any] = {}

    @classmethod
    def seats_for(cls, config: EnvConfig) -> tuple[str, ...]:
        """The roles that play under `config`.

        Raises:
            ValueError: the env cannot be played with those roles.
        """
        seats = config.roles or cls.roles
        allowed = cls.seatings or (cls.roles,)
        if seats not in allowed:
            choices = " or ".join("[" + ", ".join(s) + "]" for s in allowed)
            raise ValueError(f"env.roles: {config.name} cannot be played by {list(seats)}; it takes {choices}")
        return seats

    @classmethod
    @abstractmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[Problem]:
        """All problems of a split (None: of all splits), distinct by content, always in the same order.

        `source` is a file or a hub dataset; None means the built-in problems.

        Raises:
            ProblemSourceError: the source is not there or has a row that cannot be read.
        """

    @classmethod
    def problems_for(cls, config: EnvConfig, source: str | None, split: Split | None) -> Sequence[Problem]:
        """What is played under `config`: `problems`, unless the env's options choose among them.

        Raises:
            ValueError: the options or the source cannot be used.
        """
        return cls.problems(source, split)

    @abstractmethod
    def play(self) -> Play:
        """One episode. Yields asks (several in one list are answered at once) and is sent their replies as text."""

    @abstractmethod
    def gold(self, ask: Ask) -> str:
        """The reply to `ask` of a player who knows the reference answer. Used by the gold check, never in play."""

    @property
    def turns_left(self) -> bool:
        """Whether every role may still be asked."""
        return max(Counter(a.role for a in self.asks).values(), default=0) < self.config.max_turns

    def ask(self, role: str, content: str | list[Message]) -> Ask:
        """An ask to `role`, to be yielded. Text becomes one user message; the model sees nothing else."""
        if role not in self.seats:
            raise ValueError(f"{type(self).__name__} asked {role!r}, but the roles are {list(self.seats)}")
        messages: list[Message] = [{"role": "user", "content": content}] if isinstance(content, str) else content
        ask = Ask(role, messages, turn_idx=sum(a.role == role for a in self.asks))
        self.asks.append(ask)
        return ask


def problem_set_digest(problems: Sequence[Problem]) -> str:
    """Hash of a whole problem set, its order included."""
    return hashlib.sha256("".join(p.digest for p in problems).encode()).hexdigest()[:16]


def _as_json(value: Any) -> Any:
    """Plain data whose text is the same in every process: sets in order, dicts with other keys than text as pairs."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _as_json(item) for key, item in value.items()}
        return sorted(([_as_json(key), _as_json(item)] for key, item in value.items()), key=repr)
    if isinstance(value, set | frozenset):
        return sorted(map(_as_json, value), key=repr)
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value
