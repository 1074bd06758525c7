"""Serves the deployments of prefect.yaml from this process, with no work pool: `python -m deployments.serve`.

It needs a server: `prefect server start`, and here `export PREFECT_API_URL=http://127.0.0.1:4200/api`.
Ctrl-C stops it; no schedule fires while it is stopped. One run at a time: they would share a GPU.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

ROOT = Path(__file__).parents[1]
PREFECT_YAML = Path(__file__).with_name("prefect.yaml")


def read_deployments(path: Path = PREFECT_YAML) -> Iterator[RunnerDeployment]:
    """The deployments of a prefect.yaml, to be served. Its entrypoints are relative to the repository's root."""
    for entry in yaml.safe_load(path.read_text())["deployments"]:
        schedules = entry.get("schedules", [])
        deployment = flow_of(entry).to_deployment(
            entry["name"],
            description=entry["description"],
            parameters=entry.get("parameters"),
            schedules=[Cron(s["cron"], timezone=s["timezone"], slug=s["slug"], active=s["active"]) for s in schedules],
            concurrency_limit=ConcurrencyLimitConfig(**entry["concurrency_limit"]),
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside of an event loop
        yield deployment


def flow_of(entry: Mapping[str, Any]) -> Flow[..., Any]:
    """The flow that a deployment's entrypoint names."""
    file, _, name = entry["entrypoint"].partition(":")
    flow: Flow[..., Any] = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    return flow


if __name__ == "__main__":
    os.chdir(ROOT)
    serve(*read_deployments(), limit=1)
