"""The page that `--help` prints."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.config import RunConfig, entry_model, is_table, known_keys

_BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "more than"), (Le, "le", "at most"), (Lt, "lt", "less than"))
_KINDS: dict[Any, str] = {str: "TEXT", int: "INT", float: "NUMBER", bool: "true|false", Path: "PATH"}


def print_help(command: str, config_class: type[RunConfig], about: str, examples: Sequence[str]) -> None:
    """What the flow does, every key by section with its default and bounds, and example commands."""
    console = Console(highlight=False)
    console.print(Text(f"usage: {command} [--config FILE.yaml] [--KEY VALUE ...]\n\n{inspect.cleandoc(about)}"))
    console.print(Text("\nA flag stands above the file given by --config, and that above the defaults shown here."))
    defaults = config_class()
    for section, field in RunConfig.model_fields.items():
        console.print(Text(f"\n{section}: {field.description}", style="bold"))
        if isinstance(of_section := getattr(defaults, section), BaseModel):
            console.print(_section_table(section, of_section))
        else:
            console.print(Text(f" --{section}.KEY VALUE"))
    console.print(Text("\nexamples:\n" + "\n".join(f"  {example}" for example in examples)))
    console.print(Text("\nWINNOW_TRACEBACK=1 in the environment shows where an error came from."))


def _section_table(section: str, defaults: BaseModel) -> Table:
    table = Table.grid(padding=(0, 1), pad_edge=True)
    table.add_column(no_wrap=True, min_width=34)
    table.add_column(ratio=1)
    for key, field in known_keys(type(defaults), f"{section}.").items():
        remarks = _remarks(field, attrgetter(key.removeprefix(f"{section}."))(defaults))
        table.add_row(Text(f"--{key}{_what_to_type(field)}"), Text(f"{field.description} {remarks}".strip()))
    return table


def _what_to_type(field: FieldInfo) -> str:
    """What stands behind a key: ` INT`, `.KEY VALUE`."""
    if is_table(field):
        return ".KEY.KEY VALUE" if entry_model(field) else ".KEY VALUE"
    return f" {_kind(field.annotation)}"


def _kind(annotation: Any) -> str:
    """A word for a value: `INT`, `env|agent`, `TEXT,TEXT`."""
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        return f"{_kind(get_args(annotation)[0])},..."
    choices = [part for part in get_args(annotation) if part is not NoneType]
    return _kind(choices[0]) if choices else _KINDS[annotation]


def _remarks(field: FieldInfo, default: Any) -> str:
    """`[100; at least 1]`: the default, unless the description tells it, and the bounds."""
    shown = [] if default is None or default == {} else [_as_typed(default)]
    shown += [
        f"{word} {getattr(m, name)}" for kind, name, word in _BOUNDS for m in field.metadata if isinstance(m, kind)
    ]
    return f"[{'; '.join(shown)}]" if shown else ""


def _as_typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
