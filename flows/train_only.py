"""Fine-tune on data files that are there, then measure on held-out problems whether the model got better.

Without train.data_path it takes the newest data file in collect.data_dir.
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.train_only",
        RunConfig,
        __doc__,
        [
            "python -m flows.train_only --env.name math_env",
            "python -m flows.train_only --train.data_path 'sft_data_code/*.jsonl' --evaluate.num_problems 0",
            "python -m flows.train_only --train.data_path mine.parquet --train.dry_run true",
        ],
    )

from dataclasses import replace
from pathlib import Path

from prefect import flow
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs.problems.splits import heldout_problems
from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_evaluating, check_training
from flows.steps import Steps, from_here
from tasks.dataset.checks import check_records
from tasks.dataset.files import find_data_files, find_weighted_files
from tasks.evaluation.report import RunReport
from tasks.training.gate.audit import audit_table
from tasks.training.gate.audit_data import audit_data

DEFAULTS = RunConfig()


@flow(name="train-only", flow_run_name="{config.env.name}: train", **HOOKS)
def train_only(config: RunConfig = DEFAULTS) -> RunReport:
    """Train, evaluate, report; with train.dry_run only show what would be trained."""
    config = with_model_at_hand(config)
    (policy, *others) = config.play.policy_names
    if others:
        raise ValueError(
            f"policies: train_only trains one policy, but {policy} and {others[0]} play; leave `policies` out and name "
            "the data file of one of them with --train.data_path"
        )
    config, data = with_files(config)
    if not config.train.dry_run:
        check_training(config)
        check_evaluating(config)
    if config.evaluate.num_problems:
        heldout = heldout_problems(config.play.env_class, config.env)
        check_records(data, {problem.hash for problem in heldout})
    if config.train.dry_run:
        return show_plan(config, policy, data)
    steps = Steps("train only", config)
    steps.compare({policy: steps.train(data, policy)})
    return steps.finish(f"look at the problems that got worse: {from_here(steps.data_dir)}/report.md")


def with_files(config: RunConfig) -> tuple[RunConfig, list[Path]]:
    """The data files, absolute, and the config with the weight of each by its name.

    Raises:
        DataFileError: there are none.
    """
    spec = config.train.data_path
    if not isinstance(spec, dict):
        return config, [path.absolute() for path in find_data_files(spec, config.data_dir)]
    weights = find_weighted_files(spec, config.data_dir)
    named = {str(path): weight for path, weight in weights.items()}
    train = config.train.model_copy(update={"data_path": named})
    return config.model_copy(update={"train": train}), list(weights)


def show_plan(config: RunConfig, policy: str, data: list[Path]) -> RunReport:
    """Print what would be trained and what it would take. Nothing is written but token rows to the cache.

    Raises:
        ValueError: it cannot be trained.
    """
    from tasks.training.gate.dry_run import plan, plan_rows  # it takes torch, which takes seconds

    found = audit_data(data, config.model, config.train)
    table = Table(title="dry run: nothing is trained", title_justify="left", show_header=False, min_width=60)
    for name, value in plan_rows(plan(found, config.model, config.train), config.train):
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(audit_table(found), table)
    return replace(Steps("train only: dry run", config).summary, audits={policy: found})
