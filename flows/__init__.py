"""The flows: what a user runs. Prefect's settings are fixed here, before anything imports Prefect.

A worker's process imports this package, too, whatever flow it is to run: from here on it ends with its worker.
"""

import os
import sys
from types import TracebackType

from flows.logs import IN_UI, set_up_logs
from flows.worker_death import end_with_worker

PREFECT_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(IN_UI),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # what is logged elsewhere is not about a run
}
"""The [tool.prefect] table of pyproject.toml holds only where the working directory is the repository's root."""

for _name, _value in PREFECT_DEFAULTS.items():
    os.environ.setdefault(_name, _value)

set_up_logs()


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("Interrupted before anything was done. The same command starts it.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # `python -m flows.<flow>` is importing this package to find the module
    sys.excepthook = _say_interrupted

if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker has started this process
    end_with_worker()
