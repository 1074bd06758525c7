"""What is played where no model was named: the one that the server has or, without a hub, the included policy."""

from __future__ import annotations

import sys
from typing import TypeVar

from flows.config import RunConfig
from tasks.engines.model_files import STARTER, is_at_hand

Config = TypeVar("Config", bound=RunConfig)


def with_model_at_hand(config: Config, *, is_trained: bool = True) -> Config:
    """The config with `starter` for its model, if the user named none and the default one cannot be had; it says so.
    With a server to ask, also with the name of the model that it has. A flow that neither trains nor plays model.path
    (`is_trained` false, and a server) does without that one.

    Every flow begins with it, so that what is checked, cached and saved is what runs.

    Raises:
        EngineError: the server cannot be reached.
        ValueError: it does not take the key, or has not exactly one model.
    """
    if config.engine.kind == "openai_http":
        config = _with_model_of_server(config)
        if not is_trained:
            return config
    if "path" in config.model.model_fields_set or is_at_hand(config.model):
        return config
    print(
        f"model.path was not given and {config.model.path} cannot be had here (no hub): "
        f"using the included `{STARTER}` policy",
        file=sys.stderr,
        flush=True,
    )
    return config.model_copy(update={"model": config.model.model_copy(update={"path": STARTER})})


def _with_model_of_server(config: Config) -> Config:
    if config.engine.model is not None:
        return config
    from tasks.engines.openai_http.engine import reach_server  # its client takes a while to import

    engine = config.engine.model_copy(update={"model": reach_server(config.engine)})
    return config.model_copy(update={"engine": engine})
