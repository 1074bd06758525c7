"""What prefect.yaml promises can be deployed, and avoids what is known to go wrong."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.deployments.runner import RunnerDeployment

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from deployments.automations import AUTOMATIONS_YAML
from deployments.serve import PREFECT_YAML, read_deployments
from envs import ENV_CLASS_MAPPING
from flows.config import RunConfig
from flows.hooks import tell_how_it_ended

ROOT = Path(__file__).parents[2]
DEPLOYED: list[dict[str, Any]] = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
ENVS = {"math_env", "code_env", "search_env", "stateful_env"}


def named(prefix: str) -> dict[str, dict[str, Any]]:
    """The config of each deployment whose name begins so, by env."""
    found = [entry for entry in DEPLOYED if entry["name"].startswith(prefix)]
    return {entry["parameters"]["config"]["env"]["name"]: entry for entry in found}


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_root")
def test_every_flow_is_deployed_on_demand() -> None:
    deployed = {f"{d.flow_name}/{d.name}": d for d in read_deployments()}
    on_demand = {name.partition("/")[0] for name in deployed if name.endswith("/on-demand")}
    files = {path.stem for path in (ROOT / "flows").glob("*.py") if "\n@flow(" in path.read_text()}
    assert on_demand == {name.replace("_", "-") for name in files}
    assert len(deployed) == len(DEPLOYED)


@pytest.mark.usefixtures("in_root")
def test_every_env_is_collected_each_night_and_trained_each_week_on_its_nights() -> None:
    assert set(ENV_CLASS_MAPPING) >= ENVS
    nights, weeks = named("nightly-"), named("weekly-")
    assert set(nights) == set(weeks) == ENVS
    for env in ENVS:
        night, week = (RunConfig.model_validate(found[env]["parameters"]["config"]) for found in (nights, weeks))
        assert night.data_dir == week.data_dir != night.default_data_dir, "what is tried by day is not trained on"
        assert str(night.collect.adapter_dir) == f"{week.output_dir}-promoted"
        assert week.train.data_path is None and week.evaluate.num_problems > 0


@pytest.mark.usefixtures("in_root")
def test_what_is_scheduled_comes_at_a_time_that_each_day_has_once_and_never_twice_at_once() -> None:
    times = []
    for deployment in read_deployments():
        assert deployment.concurrency_options or deployment.name == "on-demand"
        for schedule in deployment.schedules or []:
            minute, hour, *_ = schedule.schedule.cron.split()
            assert schedule.schedule.timezone == "Europe/Berlin" and hour != "2"
            times.append((hour, minute))
    assert len(times) == len(set(times)) == 2 * len(ENVS)
    for entry in DEPLOYED:
        is_scheduled = "schedules" in entry
        assert entry["concurrency_limit"] == {
            "limit": 1,
            "collision_strategy": "CANCEL_NEW" if is_scheduled else "ENQUEUE",
        }


@pytest.mark.usefixtures("in_root")
def test_no_flow_has_retries_of_its_own_beside_a_limit_of_its_deployment() -> None:
    for deployment in read_deployments():
        assert deployment.concurrency_limit is not None
    from deployments.serve import flow_of

    assert {flow_of(entry).retries for entry in DEPLOYED} <= {0, None}


def test_every_flow_that_is_deployed_says_why_it_did_not_come_to_its_end() -> None:
    for entry in yaml.safe_load(PREFECT_YAML.read_text())["deployments"]:
        file, _, name = entry["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        for hooks in (flow.on_failure_hooks, flow.on_crashed_hooks, flow.on_cancellation_hooks):
            assert tell_how_it_ended in hooks, f"{file} is without **HOOKS of flows.hooks"


def test_a_failure_of_every_flow_that_is_deployed_is_watched() -> None:
    failed, *_ = yaml.safe_load(AUTOMATIONS_YAML.read_text())["automations"]
    assert set(failed["trigger"]["match_related"]["prefect.resource.name"]) == {
        deployment.flow_name for deployment in read_deployments()
    }


Schema = dict[str, Any]


def fields(schema: Schema, definitions: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field of a form, the sections and those of a table's entries included, by its dotted path."""
    for name, field in schema.get("properties", {}).items():
        field = resolved(field, definitions)
        yield f"{path}.{name}", field
        yield from fields(field, definitions, f"{path}.{name}")
        entry = field.get("additionalProperties")
        if isinstance(entry, dict):
            yield from fields(resolved(entry, definitions), definitions, f"{path}.{name}.KEY")


def resolved(field: Schema, definitions: Schema) -> Schema:
    """A field with what it refers to, as a form reads it."""
    return {**definitions[field["$ref"].rpartition("/")[2]], **field} if "$ref" in field else field


def form(deployment: RunnerDeployment) -> dict[str, Schema]:
    """The fields that Prefect's page shows for a run of a deployment."""
    schema = deployment._parameter_openapi_schema.model_dump()
    return dict(fields(schema, schema["definitions"], deployment.flow_name or ""))


def test_every_field_of_every_form_says_what_it_is_and_has_a_title_of_words() -> None:
    forms = [form(deployment) for deployment in read_deployments()]
    assert all(len(fields) > 60 for fields in forms)
    undescribed = {path for fields in forms for path, field in fields.items() if not field.get("description")}
    assert not undescribed
    # A name with its unit or an abbreviation in it does not become words by itself.
    titles = {path: field["title"] for fields in forms for path, field in fields.items()}
    mute = re.compile(r"\b(S|Mb|Kb|Min|Lora|R|Gpus|Url|Dtype|Env|Dora)$|\wConfig$|^(Kind|Turns|Prefer|Name|Path)$")
    assert not {path: title for path, title in titles.items() if mute.search(title)}


def test_a_form_offers_choices_and_keeps_to_bounds() -> None:
    (deployment,) = (d for d in read_deployments() if d.flow_name == "collect-and-train")
    fields = {path.removeprefix("collect-and-train.config."): field for path, field in form(deployment).items()}
    choices = {path: field["enum"] for path, field in fields.items() if "enum" in field}
    assert choices["collect.collect_mode"] == ["env", "agent"]
    assert set(choices) >= {"engine.kind", "sandbox.min_tier", "train.on_overlong", "train.quantization"}
    (registered, dotted) = fields["env.name"]["anyOf"]
    assert set(registered["enum"]) == set(ENV_CLASS_MAPPING)
    assert re.search(dotted["pattern"], "my_envs.clock_env:ClockEnv")
    assert fields["train.lora_r"]["minimum"] == 1
    assert fields["train.learning_rate"]["exclusiveMinimum"] == 0
    assert fields["collect.by_role.KEY.top_p"]["anyOf"][0]["maximum"] == 1
    assert fields["collect.agent_ratios"]["anyOf"][0]["additionalProperties"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
    }


def test_the_form_of_a_deployment_knows_the_sampling_of_a_role() -> None:
    from flows.collect_only import collect_only

    definitions = collect_only.parameters.model_dump()["definitions"]
    assert definitions["CollectConfig"]["properties"]["by_role"]["additionalProperties"]["$ref"].endswith(
        "RoleSampling"
    )
    assert {"temperature", "stop", "seed"} < set(definitions["RoleSampling"]["properties"])
