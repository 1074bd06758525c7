"""The one config tree: what `--config FILE.yaml` loads, the command line sets, and the Prefect form shows.

The classes live beside their owners; here they are only composed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from envs import load_env_class
from envs.base import EnvConfig
from envs.sandbox.base import SandboxConfig
from tasks.engines.config import EngineConfig, ModelConfig
from tasks.evaluation.config import EvaluateConfig, IterateConfig
from tasks.rollout.artifact import publish_file
from tasks.rollout.collection import PlayConfig
from tasks.rollout.config import CollectConfig
from tasks.training.config import TrainConfig

Tree = dict[str, Any]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""It becomes a part of file names."""


class RunConfig(BaseModel):
    """Everything that a flow can be told. What is left as it is has the default that is shown."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # it may be a key
    flow_defaults: ClassVar[Mapping[str, Any]] = {}
    """What this flow sets unless it is told otherwise; a flow with such defaults has its own subclass."""

    env: EnvConfig = Field(
        EnvConfig(), title="Environment", description="Which environment is played, on which problems, by which roles."
    )
    model: ModelConfig = Field(ModelConfig(), title="Model", description="The model that plays and is trained.")
    engine: EngineConfig = Field(
        EngineConfig(), title="Engine", description="What runs the model while episodes are played."
    )
    sandbox: SandboxConfig = Field(SandboxConfig(), title="Sandbox", description="Limits of one run of untrusted code.")
    collect: CollectConfig = Field(
        CollectConfig(), title="Collecting", description="Playing episodes and keeping some of them."
    )
    train: TrainConfig = Field(TrainConfig(), title="Training", description="Fine-tuning on what was kept.")
    evaluate: EvaluateConfig = Field(
        EvaluateConfig(), title="Evaluation", description="Comparing before and after on held-out problems."
    )
    iterate: IterateConfig = Field(
        IterateConfig(), title="Rounds", description="For flows.expert_iteration: collecting and training in turns."
    )
    policies: dict[str, PolicyName] = Field(
        {},
        description="The policy that plays each role, e.g. tool_generator: coder. Every policy is trained on the turns "
        "of its own roles, into an adapter of its own. Default: one shared policy plays all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_flows_defaults(cls, given: Any) -> Any:
        return merged(cls.flow_defaults, given) if isinstance(given, Mapping) else given

    @field_validator("env")
    @classmethod
    def _env_can_be_played(cls, env: EnvConfig) -> EnvConfig:
        """Checks name, roles and options with the env itself, and spells out its options: 3 and "3" are one config."""
        env_class = load_env_class(env.name)
        env_class.seats_for(env)
        try:
            options = env_class.Options.model_validate(env.options)
        except ValidationError as error:
            known = ", ".join(env_class.Options.model_fields) or "none"
            line = error_lines(error, prefix="env.options.")[0].partition(";")[0]
            raise ValueError(f"{line}; the options of {env.name}: {known}") from error
        return env.model_copy(update={"options": options.model_dump(mode="json")})

    @model_validator(mode="after")
    def _roles_that_are_named_play(self) -> Self:
        roles = load_env_class(self.env.name).seats_for(self.env)
        for key, named in (("policies", self.policies), ("collect.by_role", self.collect.by_role)):
            if unknown := sorted(set(named) - set(roles)):
                near = difflib.get_close_matches(unknown[0], roles, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{key}: no role {unknown[0]!r} plays here; wanted {', '.join(roles)}{hint}")
        return self

    @property
    def play(self) -> PlayConfig:
        """What it takes to play episodes."""
        return PlayConfig(
            env=self.env,
            model=self.model,
            engine=self.engine,
            sandbox=self.sandbox,
            collect=self.collect,
            policies=self.policies,
        )

    @property
    def data_dir(self) -> Path:
        """Where data files and journals go."""
        return (self.collect.data_dir or self.default_data_dir).expanduser()

    @property
    def default_data_dir(self) -> Path:
        """Where they go unless the config says otherwise."""
        return Path(f"sft_data_{self.env.short_name}")

    @property
    def output_dir(self) -> Path:
        """Where the adapter goes."""
        return (self.train.output_dir or Path(f"sft_model_{self.env.short_name}")).expanduser()

    @property
    def adapter_dirs(self) -> dict[str, Path]:
        """Where the adapter of each policy goes: the output folder or, with several policies, a folder in it."""
        return self.adapters_in(self.output_dir)

    def with_output_dir(self, folder: Path) -> Self:
        """The same config with another folder for the adapter."""
        return self.model_copy(update={"train": self.train.model_copy(update={"output_dir": folder})})

    def adapters_in(self, folder: Path) -> dict[str, Path]:
        """Where a training that wrote to `folder` has put the adapter of each policy."""
        names = self.play.policy_names
        return {name: folder / name if len(names) > 1 else folder for name in names}

    def train_of(self, policy: str) -> TrainConfig:
        """How a policy is trained: where earlier adapters are named, it goes on from its own."""
        if self.train.init_adapter is None:
            return self.train
        return self.train.model_copy(update={"init_adapter": self.adapters_in(self.train.init_adapter)[policy]})

    def resolved(self) -> Tree:
        """The whole tree as plain data, with the folders that were derived."""
        folders = {"collect": {"data_dir": str(self.data_dir)}, "train": {"output_dir": str(self.output_dir)}}
        tree = merged(self.model_dump(mode="json"), folders)
        if self.train.init_adapter is not None:  # it has a form of its own, which a default must not contradict later
            tree["train"] = {k: v for k, v in tree["train"].items() if k not in self.train.unset_form}
        return tree

    def save(self, path: Path) -> None:
        """Write the resolved config as YAML; `--config` reads it back."""
        with publish_file(path) as tmp:
            tmp.write_text(yaml.safe_dump(self.resolved(), sort_keys=False))


class QuickTestConfig(RunConfig):
    """A run of the whole pipeline in a minute, with the model that is included."""

    flow_defaults: ClassVar[Mapping[str, Any]] = {
        "model": {"path": "starter"},
        # With this seed some of the ten succeed in process as through vLLM: else there would be nothing to train on.
        "collect": {"num_episodes": 10, "max_tokens": 256, "seed": 4},
        "train": {"num_train_epochs": 1, "num_gpus": 1},
        "evaluate": {"num_problems": 20},
    }


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Two config trees as one; where both have a value, the one from `above` stands."""
    tree = dict(below)
    for key, value in above.items():
        under = tree.get(key)
        if isinstance(value, BaseModel) and isinstance(under, Mapping):
            value = value.model_dump(exclude_unset=True)
        tree[key] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return tree


def known_keys(config_class: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, FieldInfo]:
    """Every dotted key of the tree, e.g. `collect.num_episodes`, with its field."""
    keys: dict[str, FieldInfo] = {}
    for name, field in config_class.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[prefix + name] = field
    return keys


def is_table(field: FieldInfo) -> bool:
    """Whether a field holds keys of the user's choosing, and nothing else."""
    may_be_text = get_origin(field.annotation) is not dict and str in get_args(field.annotation)
    return bool(_entry_types(field.annotation)) and not may_be_text


def entry_model(field: FieldInfo) -> type[BaseModel] | None:
    """What each entry of a table is, where that has keys of its own, as in `collect.by_role`."""
    return next((t for t in _entry_types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), None)


def holds_json(field: FieldInfo) -> bool:
    """Whether the entries of a table may be anything, and nobody here knows what: a text would stay a text."""
    return JsonValue in _entry_types(field.annotation)


def split_at_table(key: str) -> tuple[str, str, str]:
    """The table that a dotted key lies in, the entry, and the key in that one; what is not there is empty."""
    table = next((k for k, field in known_keys().items() if is_table(field) and f"{key}.".startswith(f"{k}.")), "")
    entry, _, setting = key[len(table) + 1 :].partition(".") if table else ("", "", "")
    return table, entry, setting


def _entry_types(annotation: Any) -> list[Any]:
    if get_origin(annotation) is dict:
        return [get_args(annotation)[1]]
    return [entry for part in get_args(annotation) for entry in _entry_types(part)]


def unknown_key(key: str, flag: str = "") -> str:
    """What to say of a key that is not there: it names the nearest one that is. `flag` is what stands before keys."""
    table, entry, _ = split_at_table(key)
    model = entry_model(known_keys()[table]) if table else None
    of_entry = [f"{table}.{entry}.{name}" for name in model.model_fields] if model and entry else []
    keys = [*of_entry, *known_keys(), *RunConfig.model_fields]
    by_last_part = {known.rpartition(".")[2]: known for known in reversed(keys)}
    near = difflib.get_close_matches(key, keys, n=1) or [
        by_last_part[part] for part in difflib.get_close_matches(key.rpartition(".")[2], by_last_part, n=1)
    ]
    hint = f"did you mean {flag}{near[0]}?" if near else "--help lists all that there are"
    return f"unknown {'flag' if flag else 'key'} {flag}{key}; {hint}"


def error_lines(error: ValidationError, prefix: str = "") -> list[str]:
    """One line per mistake: the key, what was found, what is wanted."""
    lines = []
    for mistake in error.errors(include_url=False):
        key = prefix + ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "value_error":
            lines.append(str(mistake["ctx"]["error"]))
        elif mistake["type"] == "extra_forbidden":
            lines.append(unknown_key(key))
        else:
            wanted = mistake["msg"].replace("Input should", "it should")
            lines.append(f"{key}: found {mistake['input']!r}, but {wanted}")
    return lines
