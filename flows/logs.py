"""Where logs go: to the terminal and to Prefect as they are or, with WINNOW_LOG=json in the environment, as JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.observing.logs import Fields, log_as_json

VARIABLE = "WINNOW_LOG"


def set_up_logs() -> None:
    """Do what WINNOW_LOG asks for: `json` writes to stderr, `json:FILE` to a file; without it nothing changes."""
    given = os.environ.get(VARIABLE, "")
    form, _, target = given.partition(":")
    if form == "json":
        log_as_json(Path(target).expanduser() if target else None, _flow_run)
    elif given:
        print(f"{VARIABLE}: found {given!r}; wanted json or json:FILE, so it is left as it is", file=sys.stderr)


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
