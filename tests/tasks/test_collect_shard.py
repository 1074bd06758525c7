"""What a run refuses before it sends anything to a Ray cluster; the cluster itself is in tests/flows/test_scale.py."""

from __future__ import annotations

import pytest

import flows  # noqa: F401  (its settings come before the first import of Prefect)
from tasks.collect_shard import check_ray, check_server_is_in_reach, collect_shard, gpus_of_a_shard, has_room
from tasks.engines.config import EngineConfig


def test_without_a_server_or_the_extra_ray_is_refused_in_one_line() -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(ValueError) as refused:
        check_ray()
    assert str(refused.value).startswith("collect.runner: found ray")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("engine", "in_all", "expected"),
    [
        ({"kind": "vllm"}, 16, 1),
        ({"kind": "vllm"}, 0, 0),
        ({"kind": "vllm", "num_gpus": 4}, 16, 4),
        ({"kind": "in_process", "num_gpus": 0}, 16, 0),
        ({"base_url": "http://127.0.0.1:1/v1"}, 16, 0),
    ],
)
def test_a_shard_takes_the_gpus_that_its_engine_uses(engine: dict[str, object], in_all: int, expected: int) -> None:
    assert gpus_of_a_shard(EngineConfig.model_validate(engine), in_all) == expected


def test_a_shard_that_the_cluster_has_no_gpus_for_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"engine\.num_gpus: found 8 for each shard; no node of the Ray cluster has more than 4"
    ):
        gpus_of_a_shard(EngineConfig(num_gpus=8), 4.0)


@pytest.mark.parametrize(
    ("server", "nodes", "is_refused"),
    [
        ("http://127.0.0.1:4200/api", ["10.0.0.1", "10.0.0.2"], True),
        ("http://localhost:4200/api", ["10.0.0.1", "10.0.0.2"], True),
        ("http://127.0.0.1:4200/api", ["10.0.0.1", "10.0.0.1"], False),
        ("http://127.0.0.1:4200/api", ["127.0.0.2", "127.0.0.3"], False),
        ("http://10.0.0.1:4200/api", ["10.0.0.1", "10.0.0.2"], False),
    ],
)
def test_a_server_on_loopback_serves_no_other_machine(server: str, nodes: list[str], is_refused: bool) -> None:
    if not is_refused:
        return check_server_is_in_reach(server, nodes)
    with pytest.raises(ValueError, match=r"PREFECT_API_URL: .* and the Ray cluster has 2"):
        check_server_is_in_reach(server, nodes)


def test_gpus_that_only_several_nodes_have_together_are_no_room_for_a_shard() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {"GPU": 4.0}},
    ]
    assert has_room(nodes, 2)
    assert not has_room(nodes, 4)


def test_a_shard_is_never_tried_again_under_its_name() -> None:
    assert collect_shard.retries == 0
