"""Is it the selection that helps? Train on successes and, for comparison, on as many failures and on chance picks.

Three policies are trained from the same episodes with the same settings: on what succeeded, on what failed, and on what
would have been kept if the same verdicts had been dealt out at random. All are compared with the bare model on the same
held-out problems. If the gain were due to training as such, the others would show it, too.
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.control",
        RunConfig,
        __doc__,
        [
            "python -m flows.control --config deployments/configs/demo-math.yaml",
            "python -m flows.control --env.name code_env --collect.num_episodes 1000",
        ],
    )

from prefect import flow

from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.steps import Steps, from_here
from tasks.dataset.relabel import CONTROLS, Control
from tasks.evaluation.report import RunReport

DEFAULTS = RunConfig()


@flow(name="control", flow_run_name="{config.env.name}: control")
def control(config: RunConfig = DEFAULTS) -> RunReport:
    """Collect, validate, train and evaluate; train and evaluate each control; report."""
    config = with_model_at_hand(config)
    if not config.evaluate.num_problems:
        raise ValueError("evaluate.num_problems: found 0; a control is compared on held-out problems, so wanted some")
    arms = {name: _of_control(config, name) for name in CONTROLS}
    for of_arm in (config, *arms.values()):
        check_training(of_arm)
    check_collecting(config)
    check_evaluating(config)
    steps = Steps("control", config)
    episodes = steps.play({})
    datasets = steps.keep(episodes)
    steps.compare(steps.train_policies({policy: [dataset.path] for policy, dataset in datasets.items()}))
    comparisons = {}
    for name, of_arm in arms.items():
        arm = Steps(name, of_arm)
        data = {policy: [arm.relabel(episodes, policy, name, kept.funnel.kept)] for policy, kept in datasets.items()}
        comparisons[name] = arm.measure({}, arm.train_policies(data))
    steps.note(controls=comparisons)
    return steps.finish(f"look at the table of controls: {from_here(steps.data_dir)}/report.md")


def _of_control(config: RunConfig, name: Control) -> RunConfig:
    """The same config with another folder for the adapter."""
    folder = config.output_dir.with_name(f"{config.output_dir.name}-{name.replace(' ', '-')}")
    return config.model_copy(update={"train": config.train.model_copy(update={"output_dir": folder})})
