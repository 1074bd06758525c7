"""A Prefect server as a team has it, and the deployments of prefect.yaml on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from deployments.serve import read_deployments
from docs.prefect_server import prefect_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address, while it is the one that Prefect's client asks."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    home = tmp_path_factory.mktemp("server")
    with prefect_server(home) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        EventsWorker.drain_all(timeout=10, at_exit=False)  # it would go on telling the server that it began with
        yield address
        EventsWorker.drain_all(timeout=10, at_exit=False)


@pytest.fixture(scope="module")
def deployed(served: str) -> dict[str, str]:
    """The ids of the deployments, by names such as `collect-only/nightly-math`."""
    return {f"{deployment.flow_name}/{deployment.name}": str(deployment.apply()) for deployment in read_deployments()}
