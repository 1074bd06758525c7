"""Does the pipeline work? Ten episodes with the included tiny model, one epoch, one device, a small before and after.

No GPU, no server and no download is needed. Its numbers prove nothing about a model: they are too few.
"""

from flows.cli import run_command
from flows.config import QuickTestConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.quick_test",
        QuickTestConfig,
        __doc__,
        ["python -m flows.quick_test", "python -m flows.quick_test --env.name math_env --collect.num_episodes 50"],
    )

from prefect import flow

from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.steps import Steps
from tasks.evaluation.report import RunReport

DEFAULTS = QuickTestConfig()


@flow(name="quick-test", flow_run_name="{config.env.name}: quick test", **HOOKS)
def quick_test(config: QuickTestConfig = DEFAULTS) -> RunReport:
    """Collect, validate, compute stats, train, evaluate, report; all of it small."""
    config = with_model_at_hand(config)
    check_training(config)
    check_collecting(config)
    check_evaluating(config)
    steps = Steps("quick test", config)
    data = {policy: [dataset.path] for policy, dataset in steps.collect().items()}
    steps.compare(steps.train_policies(data))
    return steps.finish(f"for real: {steps.command('flows.collect_and_train')}")
