"""Reads a flow's config from the command line and a YAML file: flags, then the file, then the flow's own defaults."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError, create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from flows.config import RunConfig, Tree, error_lines, known_keys, merged, unknown_key

Config = TypeVar("Config", bound=RunConfig)


def is_table(annotation: object) -> bool:
    """Whether a field holds keys of the user's choosing."""
    return get_origin(annotation) is dict or any(is_table(part) for part in get_args(annotation))


class ConfigError(ValueError):
    """The command line or the config file is wrong. Its text is one line for each mistake."""


def read_config(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """The config that a command line asks for.

    Raises:
        ConfigError: an unknown key, a value out of bounds or of the wrong type, a file that cannot be read.
    """
    files, flags = _split_off_config_file(arguments)
    from_flags = _read_flags(flags)
    tree: Tree = {}
    for file in files:
        tree = merged(tree, _read_yaml(file))
    try:
        return config_class.model_validate(merged(tree, from_flags))
    except ValidationError as error:
        raise ConfigError("\n".join(error_lines(error))) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _split_off_config_file(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, action="append", default=[])
    found, rest = parser.parse_known_args(list(arguments))
    return found.config, rest


def _read_flags(flags: Sequence[str]) -> Tree:
    """Flags as a tree of their texts, parsed by pydantic-settings."""
    spelled = _checked(flags)

    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in RunConfig.model_fields.items()}
    settings = create_model("Settings", __base__=BaseSettings, **fields)
    parser = _Parser(add_help=False, allow_abbrev=False)
    try:
        return CliSettingsSource(settings, cli_parse_args=spelled, root_parser=parser, cli_parse_none_str="null")()
    except SettingsError as error:
        raise ConfigError(str(error.__cause__ or error)) from error


def _checked(flags: Sequence[str]) -> list[str]:
    """The flags, every one of them known; `--env.options.size 3` becomes `--env.options size=3`.

    Raises:
        ConfigError: a flag that does not exist (it names the nearest one that does), or a table without a key.
    """
    keys = known_keys()
    spelled: list[str] = []
    words = iter(flags)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        table, _, entry = key.rpartition(".")
        if word.startswith("--") and key in keys and is_table(keys[key].annotation):
            value = value if equals else next(words, "")
            if "=" not in value and not value.startswith("{"):
                raise ConfigError(f"--{key}: found {value!r}; wanted --{key}.KEY VALUE")
            spelled += [f"--{key}", value]
        elif not word.startswith("--") or key in keys:
            spelled.append(word)
        elif table in keys and is_table(keys[table].annotation):
            spelled += [f"--{table}", json.dumps({entry: value if equals else next(words, "")})]
        else:
            raise ConfigError(unknown_key(key, flag="--"))
    return spelled


def _read_yaml(file: Path) -> Tree:
    try:
        tree = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        others = sorted(str(p) for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        there = f"; there: {', '.join(others)}" if others else ""
        raise ConfigError(f"--config: no file {file}{there}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: cannot read {file}: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{file}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: found a {type(tree).__name__}; wanted sections with keys, such as `collect:`")
    return tree
