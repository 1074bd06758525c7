"""Collect and train in rounds: each collects with the best adapter so far, and only one that is better takes its place.

Every round plays afresh with the policy that was promoted last, trains the base model anew on all that was kept in this
round and the earlier ones, and compares on held-out problems. The new adapter is promoted if it is significantly
better. The best one is in <train.output_dir>-rounds/promoted, that of each round beside it. (STaR, Zelikman et al.
2022, and ReST-EM, Singh et al. 2023, train from the base model in every round, too.)
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.expert_iteration",
        RunConfig,
        __doc__,
        [
            "python -m flows.expert_iteration --env.name math_env --iterate.num_rounds 5",
            "python -m flows.expert_iteration --config deployments/configs/demo-rounds.yaml",
        ],
    )

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from prefect import flow

from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.schedule import with_scheduled_batch
from flows.steps import Steps, from_here
from tasks.artifacts import show_promotion
from tasks.bring import bring_folder
from tasks.dataset.checks import NothingToTrainOnError
from tasks.evaluation.compare import Comparison
from tasks.evaluation.report import RunReport
from tasks.evaluation.series import Round
from tasks.rollout.artifact import Ref

DEFAULTS = RunConfig()


@flow(name="expert-iteration", flow_run_name="{config.env.name}: {config.iterate.num_rounds} rounds", **HOOKS)
def expert_iteration(config: RunConfig = DEFAULTS) -> RunReport:
    """Rounds of collect, validate, train, evaluate, report."""
    config = with_model_at_hand(with_scheduled_batch(config))
    if not config.evaluate.num_problems:
        raise ValueError("evaluate.num_problems: found 0; rounds are compared on held-out problems, so wanted some")
    if config.collect.adapter_dir is not None:
        raise ValueError("collect.adapter_dir: rounds begin with the bare model; leave it out")
    numbers = range(1, config.iterate.num_rounds + 1)
    for part in (_promoted(config), *(_of_round(config, number) for number in numbers)):
        check_training(part)
    check_collecting(config)
    check_evaluating(config)
    series = _Series(config)
    for number in numbers:
        series.play(number)
    return series.finish()


class _Series:
    """The rounds so far. After each one the best adapters are published and the report is written."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._steps = Steps("expert iteration", config)
        self._data: dict[str, list[Path]] = defaultdict(list)
        self._best: Mapping[str, Ref] = {}
        self._rounds: list[Round] = []

    def play(self, number: int) -> None:
        """Collect with the best adapters, train on everything, and see whether that is better."""
        steps = Steps(f"round {number}", _of_round(self._config, number), self._steps)
        adapters: Mapping[str, Ref] = {}
        comparison = None
        try:
            for policy, dataset in steps.keep(steps.play(self._best)).items():
                self._data[policy].append(dataset.path)
        except NothingToTrainOnError:
            if number == 1:
                raise
        else:
            adapters = steps.train_policies(self._data)
            comparison = steps.measure(self._best, adapters)
        self._rounds.append(_round(number, steps.summary, comparison))
        self._steps.note(
            rounds=tuple(self._rounds),
            left_out={**self._steps.summary.left_out, **steps.summary.left_out},
            files={f"{what} {number}": path.absolute() for what, path in steps.summary.files.items()},
        )
        if self._rounds[-1].promoted:
            self._promote(adapters)
        if comparison is not None:
            self._show(number, comparison)
        self._steps.report()

    def _promote(self, adapters: Mapping[str, Ref]) -> None:
        folders = _promoted(self._config).adapter_dirs
        self._best = {policy: bring_folder(adapters[policy], folder.absolute()) for policy, folder in folders.items()}
        self._steps.note(files={"promoted": _promoted(self._config).output_dir.absolute()})

    def _show(self, number: int, comparison: Comparison) -> None:
        what = f"round {number} {'promoted' if self._rounds[-1].promoted else 'not promoted'}: {comparison.verdict}"
        in_use = _promoted(self._config).output_dir.absolute() if self._best else "the bare model"
        places = {"adapter": _of_round(self._config, number).output_dir.absolute(), "in use from now on": in_use}
        show_promotion(self._config.env.name, what, places, comparison)

    def finish(self) -> RunReport:
        """Compare the best adapters with the bare model, and report."""
        if not self._best:
            return self._steps.finish("no round was better than the bare model; try more episodes a round")
        self._steps.compare(self._best)
        promoted = str(_promoted(self._config).output_dir)
        return self._steps.finish(
            f"look at the curve: {from_here(self._steps.data_dir)}/rounds.png",
            f"measure again: {self._steps.command('flows.evaluate_only', '--evaluate.adapter_dir', promoted)}",
        )


def _round(number: int, played: RunReport, comparison: Comparison | None) -> Round:
    return Round(
        number=number,
        success_rate=played.succeeded / played.finished if played.succeeded is not None and played.finished else None,
        kept=sum(played.kept.values()) if comparison else 0,
        trained_rows=sum(counts.rows for counts in played.trained.values()),
        comparison=comparison,
    )


def _promoted(config: RunConfig) -> RunConfig:
    """The same config with the folder of the best adapter."""
    return _with_folder(config, "promoted")


def _of_round(config: RunConfig, number: int) -> RunConfig:
    """The config of one round: replies of its own, and a folder of its own for the adapter."""
    batch = f"round {number}" if config.collect.batch is None else f"{config.collect.batch} round {number}"
    played = config.model_copy(update={"collect": config.collect.model_copy(update={"batch": batch})})
    return _with_folder(played, f"round-{number}")


def _with_folder(config: RunConfig, name: str) -> RunConfig:
    return config.with_output_dir(config.output_dir.with_name(f"{config.output_dir.name}-rounds") / name)
