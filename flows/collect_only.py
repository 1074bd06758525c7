"""Play episodes, keep what succeeded, and write a data file: collect now, look at the data, train later."""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.collect_only",
        RunConfig,
        __doc__,
        [
            "python -m flows.collect_only --env.name math_env --collect.num_episodes 200",
            "python -m flows.collect_only --env.dataset problems.jsonl --collect.collect_mode agent",
        ],
    )

import shlex

from prefect import flow

from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting
from flows.schedule import with_scheduled_batch
from flows.steps import Steps, from_here
from tasks.evaluation.report import RunReport

DEFAULTS = RunConfig()


@flow(name="collect-only", flow_run_name="{config.env.name}: collect {config.collect.num_episodes} episodes", **HOOKS)
def collect_only(config: RunConfig = DEFAULTS) -> RunReport:
    """Collect, validate, compute stats, report."""
    config = with_model_at_hand(with_scheduled_batch(config), is_trained=False)
    check_collecting(config)
    steps = Steps("collect only", config)
    datasets = steps.collect()
    first, *others = (from_here(dataset.path) for dataset in datasets.values())
    look = f"look at the data: head -1 {shlex.quote(str(first))}"
    if not others:
        return steps.finish(look, f"train on it: {steps.command('flows.train_only', '--train.data_path', str(first))}")
    return steps.finish(look, f"train and evaluate: {steps.command('flows.collect_and_train', *_policies(config))}")


def _policies(config: RunConfig) -> list[str]:
    """The flags that say who plays what."""
    roles = ["--env.roles", ",".join(config.env.roles)] if config.env.roles else []
    return [*roles, *(word for role, policy in config.policies.items() for word in (f"--policies.{role}", policy))]
