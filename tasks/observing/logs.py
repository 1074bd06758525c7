"""Logs as JSON, a line for each record, which says which run, collection and episode it is about.

Only the packages of this project are logged so. A record holds what its message says and where an exception came from,
never an exception's own text: that may quote what a model wrote.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

LOGGERS = ("tasks", "envs", "flows", "deployments")

Fields = Mapping[str, str | int]


EpisodeId = tuple[str, int, str]
"""Problem hash, rollout and env of the episode that records are about."""

collection_id: ContextVar[str] = ContextVar("collection_id")
"""The key of the collection that is played. Set where an event loop begins, whose context ends with it."""
episode_id: ContextVar[EpisodeId] = ContextVar("episode_id")
"""The episode that is played. A plain tuple, since it is made for every one."""


def log_as_json(target: Path | None, run: Callable[[], Fields]) -> None:
    """Write the records of this project's loggers, from INFO on, as JSON.

    Args:
        target: a file to append to; None is stderr.
        run: what is known of the run that a record is written in.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if target is not None:
        handler = logging.FileHandler(target, encoding="utf-8")
    handler.setFormatter(JsonLines(run))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class JsonLines(logging.Formatter):
    """A record as a line of JSON."""

    def __init__(self, run: Callable[[], Fields]) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._run(),
        }
        if key := collection_id.get(None):
            fields["collection"] = key
        if episode := episode_id.get(None):
            fields |= zip(("problem", "rollout", "env"), episode, strict=True)
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            fields |= {"error": kind.__name__, "traceback": "".join(traceback.format_tb(trace))}
        return json.dumps(fields)
