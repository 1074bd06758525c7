"""How task results are cached: under a key of content alone, as JSON references that check the disk when read.

A key never holds a path, a port, a host or anything else that leaves the result as it is, so the same work is found
again from any folder and in any later run, with no server. A reference whose files are gone or have changed does not
parse, which Prefect takes as a miss.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, TypedDict

from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task

from tasks.faults import is_infrastructure_fault

logger = logging.getLogger(__name__)

KeyFunction = Callable[[TaskRunContext, dict[str, Any]], str]


def by_content(content: Callable[..., Any], version: int) -> KeyFunction:
    """A cache key from what `content` makes of the task's arguments: plain JSON data.

    Args:
        content: takes the task's arguments by name.
        version: raise it when the task's own code gives other results for the same content.
    """

    def key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
        text = json.dumps([version, content(**arguments)], sort_keys=True)
        return f"winnow-{context.task.name}-{hashlib.sha256(text.encode()).hexdigest()}"

    return key


def retry_if_infrastructure(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the fault that ended `state` may be gone on a second try. Says so if it is tried again."""
    try:
        state.result()
    except Exception as error:
        if is_infrastructure_fault(error):
            logger.warning("%s: %s Trying again.", task.name, error)
            return True
    return False


class TaskOptions(TypedDict):
    """Options that tasks share."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Callable[[Task[..., Any], TaskRun, State[Any]], bool]


RETRIED: TaskOptions = {
    "retries": 2,
    "retry_delay_seconds": [2.0, 20.0],
    "retry_condition_fn": retry_if_infrastructure,
}
"""For tasks that resume where they were: playing and training."""
