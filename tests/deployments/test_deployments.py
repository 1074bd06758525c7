"""What prefect.yaml promises can be deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from deployments.serve import read_deployments


def test_every_flow_is_deployed_on_demand_and_one_collection_every_night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    deployed = {f"{d.flow_name}/{d.name}": d for d in read_deployments()}
    flows_on_demand = {name.partition("/")[0] for name in deployed if name.endswith("/on-demand")}
    assert flows_on_demand == {
        "quick-test",
        "collect-and-train",
        "collect-only",
        "train-only",
        "evaluate-only",
        "expert-iteration",
        "control",
    }
    (schedule,) = deployed["collect-only/nightly"].schedules or []
    assert schedule.schedule.cron == "0 2 * * *"
    assert schedule.schedule.timezone


def test_a_deployments_parameters_fit_its_flow() -> None:
    from flows.config import RunConfig

    for deployment in read_deployments():
        RunConfig.model_validate(deployment.parameters.get("config", {}))


def test_the_form_of_a_deployment_knows_the_sampling_of_a_role() -> None:
    from flows.collect_only import collect_only

    definitions = collect_only.parameters.model_dump()["definitions"]
    assert definitions["CollectConfig"]["properties"]["by_role"]["additionalProperties"]["$ref"].endswith(
        "RoleSampling"
    )
    assert {"temperature", "stop", "seed"} < set(definitions["RoleSampling"]["properties"])
