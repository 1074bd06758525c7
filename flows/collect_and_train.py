"""Play episodes, keep what succeeded, fine-tune on it, and measure on held-out problems whether the model got better.

Each step's result is cached by its content: the same command again goes on where the last one stopped.
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.collect_and_train",
        RunConfig,
        __doc__,
        [
            "python -m flows.collect_and_train --env.name math_env --collect.num_episodes 500 --train.lora_r 32",
            "python -m flows.collect_and_train --config deployments/configs/demo-math.yaml",
        ],
    )

from prefect import flow

from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.schedule import with_scheduled_batch
from flows.steps import Steps, from_here
from tasks.evaluation.report import RunReport

DEFAULTS = RunConfig()


@flow(name="collect-and-train", flow_run_name="{config.env.name}: collect and train", **HOOKS)
def collect_and_train(config: RunConfig = DEFAULTS) -> RunReport:
    """Collect, validate, compute stats, train, evaluate, report."""
    config = with_model_at_hand(with_scheduled_batch(config))
    check_training(config)
    check_collecting(config)
    check_evaluating(config)
    steps = Steps("collect and train", config)
    data = {policy: [dataset.path] for policy, dataset in steps.collect().items()}
    steps.compare(steps.train_policies(data))
    return steps.finish(f"look at the plot, what got worse and the episodes: {from_here(steps.data_dir)}/report.html")
