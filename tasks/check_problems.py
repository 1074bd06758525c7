"""Prefect task: find the problems whose own reference answer does not win, before any is played."""

from __future__ import annotations

from typing import Any

from prefect import task

from tasks.caching import RETRIED, by_content
from tasks.evaluation.config import EvaluateConfig
from tasks.rollout.collection import Collection, PlayConfig
from tasks.rollout.problem_check import ProblemCheck
from tasks.rollout.problem_check import check_problems as check


def _collection(config: PlayConfig, evaluate_config: EvaluateConfig | None) -> Collection:
    if evaluate_config is None:
        return Collection.for_training(config, {})
    return Collection.for_evaluation(config, evaluate_config, {})


def _content(config: PlayConfig, evaluate_config: EvaluateConfig | None) -> dict[str, Any]:
    collection = _collection(config, evaluate_config)
    judged_by = {part: collection.identity[part] for part in ("env", "problems", "sandbox")}
    return {**judged_by, "wanted": collection.most_problems}


@task(
    name="check-problems",
    task_run_name="check the reference answers of {config.env.name}",
    cache_key_fn=by_content(_content, version=2),
    persist_result=True,
    result_serializer="json",
    **RETRIED,
)
def check_problems(config: PlayConfig, evaluate_config: EvaluateConfig | None) -> ProblemCheck:
    """Play the reference answers of as many problems as are to be played; `evaluate_config`: of the held-out ones.

    Raises:
        ServiceError: the infrastructure failed.
        ValueError: no problem is sound, or the env fails in each of the first ones.
    """
    collection = _collection(config, evaluate_config)
    return check(collection.problems, collection.most_problems, config.env_class, config.env, config.sandbox)
