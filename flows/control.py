"""Is it the selection that helps? Train on successes and, for comparison, on failures and on chance picks.

Three adapters are trained from the same episodes with the same settings: on what succeeded, on what failed, and on what
would have been kept if the same verdicts had been dealt out at random; the last two on at most as many rows as the
first. All are compared with the bare model on the same held-out problems. If the gain were due to training as such,
the others would show it, too.
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

from collections.abc import Mapping
from pathlib import Path

from prefect import flow

from flows.adapters import collecting_adapters
from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_collecting, check_evaluating, check_training
from flows.schedule import with_scheduled_batch
from flows.steps import Steps, from_here
from tasks.dataset.relabel import CONTROLS, Control, check_control_can_be_made
from tasks.evaluation.report import RunReport
from tasks.evaluation.series import Arm

DEFAULTS = RunConfig()


@flow(name="control", flow_run_name="{config.env.name}: control", **HOOKS)
def control(config: RunConfig = DEFAULTS) -> RunReport:
    """Collect, validate, train and evaluate; train and evaluate each control; report."""
    config = with_model_at_hand(with_scheduled_batch(config))
    if not config.evaluate.num_problems:
        raise ValueError("evaluate.num_problems: found 0; a control is compared on held-out problems, so wanted some")
    check_control_can_be_made(config.collect)
    configs = {name: _of_control(config, name) for name in CONTROLS}
    for part in (config, *configs.values()):
        check_training(part)
    check_collecting(config)
    check_evaluating(config)
    steps = Steps("control", config)
    episodes = steps.play(collecting_adapters(config))
    kept = steps.keep(episodes)
    data: dict[Control, dict[str, list[Path]]] = {  # before any training: one may have nothing to train on
        name: {p: [steps.relabel(episodes, p, name, dataset.funnel.kept).path] for p, dataset in kept.items()}
        for name in CONTROLS
    }
    steps.compare(steps.train_policies({policy: [dataset.path] for policy, dataset in kept.items()}))
    arms = {name: _arm(Steps(name, configs[name], steps), data[name]) for name in CONTROLS}
    steps.note(controls=arms)
    return steps.finish(f"look at the table of controls: {from_here(steps.data_dir)}/report.md")


def _arm(steps: Steps, data: Mapping[str, list[Path]]) -> Arm:
    adapters = steps.train_policies(data)
    rows = sum(adapter.counts.rows for adapter in adapters.values())
    return Arm(trained_rows=rows, comparison=steps.measure({}, adapters))


def _of_control(config: RunConfig, name: Control) -> RunConfig:
    """The same config with another folder for the adapter."""
    folder = config.output_dir.with_name(f"{config.output_dir.name}-{name.replace(' ', '-')}")
    return config.with_output_dir(folder)
