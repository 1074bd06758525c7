"""Where logs go: to the terminal and Prefect's UI and, with WINNOW_LOG=json in the environment, elsewhere as JSON."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from tasks.observing.logs import Fields, log_as_json

VARIABLE = "WINNOW_LOG"
IN_UI = ("tasks", "envs")
"""The loggers whose records within a run are seen in the UI."""


def set_up_logs() -> None:
    """Have the UI show what is logged within a run, and do what WINNOW_LOG asks for.

    `json` writes to stderr, `json:FILE` to a file.
    """
    prefect_logging = sys.modules.get("prefect.logging.configuration")
    if prefect_logging is not None and prefect_logging.PROCESS_LOGGING_CONFIG:
        _show_in_ui()
    given = os.environ.get(VARIABLE, "")
    form, _, target = given.partition(":")
    if form == "json":
        try:
            log_as_json(Path(target).expanduser() if target else None, _flow_run)
        except OSError as error:
            print(
                f"{VARIABLE}: {target} cannot be written ({error.strerror}), so logs stay as they are", file=sys.stderr
            )
    elif given:
        print(f"{VARIABLE}: found {given!r}; wanted json or json:FILE, so it is left as it is", file=sys.stderr)


def _show_in_ui() -> None:
    """Do what the settings of `flows` ask for, where Prefect has set its logs up before them, as in a worker."""
    from prefect.logging.handlers import APILogHandler

    for name in IN_UI:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
            handler = APILogHandler()
            handler.addFilter(lambda _: bool(_flow_run()))
            logger.addHandler(handler)


def _flow_run() -> Fields:
    """The flow run that this is a part of, if it is."""
    context = sys.modules.get("prefect.context")  # where nobody has imported Prefect, no flow runs
    if context is None:
        return {}
    if (flow := context.FlowRunContext.get()) and flow.flow_run:
        return {"flow_run": str(flow.flow_run.id)}
    if (task := context.TaskRunContext.get()) and task.task_run.flow_run_id:
        return {"flow_run": str(task.task_run.flow_run_id)}
    return {}
