"""Serves the deployments of prefect.yaml from this process, with no work pool: `python -m deployments.serve`.

It needs a server: `prefect server start`, and here `export PREFECT_API_URL=http://127.0.0.1:4200/api`.
Ctrl-C stops it; no schedule fires while it is stopped.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

ROOT = Path(__file__).parents[1]
PREFECT_YAML = Path(__file__).with_name("prefect.yaml")


def read_deployments(path: Path = PREFECT_YAML) -> Iterator[RunnerDeployment]:
    """The deployments of a prefect.yaml, to be served. Its entrypoints are relative to the repository's root."""
    for entry in yaml.safe_load(path.read_text())["deployments"]:
        file, _, name = entry["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        schedules = entry.get("schedules", [])
        yield flow.to_deployment(
            entry["name"],
            description=entry["description"],
            parameters=entry.get("parameters"),
            schedules=[Cron(s["cron"], timezone=s["timezone"], slug=s["slug"], active=s["active"]) for s in schedules],
            concurrency_limit=ConcurrencyLimitConfig(**entry["concurrency_limit"]),
        )


if __name__ == "__main__":
    os.chdir(ROOT)
    serve(*read_deployments())
