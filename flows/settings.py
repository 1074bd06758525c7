"""Reads a flow's config from the command line and a YAML file: flags, then the file, then the flow's own defaults."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import from_json
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from flows.config import (
    RunConfig,
    Tree,
    entry_model,
    error_lines,
    holds_json,
    is_table,
    known_keys,
    merged,
    split_at_table,
    unknown_key,
)

Config = TypeVar("Config", bound=RunConfig)


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
    """Flags as a tree of their texts."""
    plain, of_entries = _checked(flags)
    tree = _parsed(RunConfig, plain)
    for (table, entry), own in of_entries.items():
        model = entry_model(known_keys()[table])
        assert model is not None
        branch: Tree = {entry: _parsed(model, own)}
        for section in reversed(table.split(".")):
            branch = {section: branch}
        tree = merged(tree, branch)
    return tree


def _parsed(config_class: type[BaseModel], flags: Sequence[str]) -> Tree:
    """Flags of a class as a tree of their texts, parsed by pydantic-settings."""
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in config_class.model_fields.items()}
    settings = create_model("Settings", __base__=BaseSettings, **fields)
    parser = _Parser(add_help=False, allow_abbrev=False)
    try:
        return CliSettingsSource(settings, cli_parse_args=list(flags), root_parser=parser, cli_parse_none_str="null")()
    except SettingsError as error:
        is_broken_json = isinstance(error.__cause__, json.JSONDecodeError)  # its own text does not name the key
        raise ConfigError(str(error if is_broken_json else error.__cause__ or error)) from error


def _checked(flags: Sequence[str]) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """The flags, every one of them known: those of the config, and those of each entry of a table of models.

    `--env.options.size 3` becomes `--env.options {"size": "3"}` of the config, and `--collect.by_role.coder.top_k 3`
    becomes `--top_k=3` of the entry `coder` of `collect.by_role`.

    Raises:
        ConfigError: a flag that does not exist (it names the nearest one that does), or a table without a key.
    """
    keys = known_keys()
    plain: list[str] = []
    of_entries: dict[tuple[str, str], list[str]] = {}
    words = iter(flags)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or (key in keys and not is_table(keys[key])):
            plain.append(word)
            continue
        table, entry, setting = split_at_table(key)
        model = entry_model(keys[table]) if table else None
        if not table or (setting and (model is None or setting not in model.model_fields)):
            raise ConfigError(unknown_key(key, flag="--"))
        text = value if equals else next(words, "")
        if setting:
            of_entries.setdefault((table, entry), []).append(f"--{setting}={text}")
        else:
            plain += [f"--{table}", _table_text(table, entry, text)]
    return plain, of_entries


def _table_text(table: str, entry: str, text: str) -> str:
    """What is given for a table or for one of its entries, as pydantic-settings takes a table: mostly as JSON."""
    field = known_keys()[table]
    of_models = entry_model(field) is not None
    if not entry and text.startswith("{"):
        return text
    if of_models or not (entry or "=" in text):
        key = f"--{table}.{entry}" if entry else f"--{table}"
        raise ConfigError(f"{key}: found {text!r}; wanted --{table}.{entry or 'KEY'}{'.KEY' * of_models} VALUE")
    if not holds_json(field):
        return json.dumps({entry: text}) if entry else text
    if not entry:
        entry, _, text = text.partition("=")
    return json.dumps({entry: _json_or_text(text)})


def _json_or_text(text: str) -> Any:
    """`false` and `[1, 2]` are what they are in JSON, and `calm` is a text."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


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
