"""A run for which no model was named, on a machine that cannot get the default one, plays the included policy."""

from __future__ import annotations

import sys
from typing import TypeVar

from flows.config import RunConfig
from tasks.engines.model_files import STARTER, is_at_hand

Config = TypeVar("Config", bound=RunConfig)


def with_model_at_hand(config: Config) -> Config:
    """The config with `starter` for its model, if the user named none and the default one cannot be had; it says so.

    Every flow begins with it, so that what is checked, cached and saved is what runs.
    """
    if "path" in config.model.model_fields_set or is_at_hand(config.model):
        return config
    print(
        f"model.path was not given and {config.model.path} cannot be had here (no hub): "
        f"using the included `{STARTER}` policy",
        file=sys.stderr,
        flush=True,
    )
    return config.model_copy(update={"model": config.model.model_copy(update={"path": STARTER})})
