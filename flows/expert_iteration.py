"""Collect and train in rounds: each collects with the best adapter so far, and only one that is better takes its place.

Every round plays afresh with the policy that was promoted last, trains the base model anew on all that was kept in this
round and the earlier ones, and compares on held-out problems. The new adapter is promoted if it is significantly
better. The best one ends up in train.output_dir/promoted, that of each round beside it. (STaR, Zelikman et al. 2022,
and ReST-EM, Singh et al. 2023, train from the base model in every round, too.)
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
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow

from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.schedule import with_scheduled_batch
from flows.steps import Steps, from_here
from tasks.bring import bring_folder
from tasks.evaluation.compare import Comparison
from tasks.evaluation.report import RunReport
from tasks.evaluation.rounds import Round
from tasks.rollout.artifact import Ref

DEFAULTS = RunConfig()


@flow(name="expert-iteration", flow_run_name="{config.env.name}: {config.iterate.num_rounds} rounds")
def expert_iteration(config: RunConfig = DEFAULTS) -> RunReport:
    """Rounds of collect, validate, train, evaluate; then report."""
    config = with_model_at_hand(with_scheduled_batch(config))
    if not config.evaluate.num_problems:
        raise ValueError("evaluate.num_problems: found 0; rounds are compared on held-out problems, so wanted some")
    configs = [_of_round(config, number) for number in range(1, config.iterate.num_rounds + 1)]
    for of_round in configs:
        check_training(of_round)
    check_collecting(config)
    check_evaluating(config)
    data: dict[str, list[Path]] = defaultdict(list)
    best: Mapping[str, Ref] = {}
    rounds: list[Round] = []
    for number, of_round in enumerate(configs, start=1):
        steps = Steps(f"round {number} of {len(configs)}", of_round)
        for policy, dataset in steps.keep(steps.play(best)).items():
            data[policy].append(dataset.path)
        adapters = steps.train_policies(data)
        comparison = steps.measure(best, adapters)
        rounds.append(_round(number, steps.summary, comparison))
        best = adapters if rounds[-1].promoted else best
    return _finish(Steps("expert iteration", config), rounds, best)


def _of_round(config: RunConfig, number: int) -> RunConfig:
    """The config of one round: replies of its own, and a folder of its own for the adapter."""
    batch = f"round {number}" if config.collect.batch is None else f"{config.collect.batch} round {number}"
    return config.model_copy(
        update={
            "collect": config.collect.model_copy(update={"batch": batch}),
            "train": config.train.model_copy(update={"output_dir": config.output_dir / f"round-{number}"}),
        }
    )


def _round(number: int, played: RunReport, comparison: Comparison) -> Round:
    return Round(
        number=number,
        success_rate=played.succeeded / played.finished if played.succeeded is not None and played.finished else None,
        kept=sum(played.kept.values()),
        trained_rows=sum(counts.rows for counts in played.trained.values()),
        comparison=comparison,
    )


def _finish(steps: Steps, rounds: Sequence[Round], best: Mapping[str, Ref]) -> RunReport:
    """Put the best adapters where they are looked for, compare them with the bare model, and report."""
    steps.note(rounds=rounds)
    if not best:
        return steps.finish("no round was better than the bare model: more episodes, or other train settings, may help")
    promoted = steps.config.output_dir.absolute() / "promoted"
    for policy, folder in steps.config.adapters_in(promoted).items():
        bring_folder(best[policy], folder)
    steps.note(files={"promoted": promoted})
    steps.compare(best)
    return steps.finish(f"look at the curve: {from_here(steps.data_dir)}/rounds.png")
