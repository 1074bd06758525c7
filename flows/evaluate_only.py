"""Play held-out problems with the bare model and with a trained one, and compare them.

The trained one is evaluate.adapter_dir or, without it, train.output_dir; with several policies, their folders in it. A
-promoted folder stands for what is promoted in it.
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.evaluate_only",
        RunConfig,
        __doc__,
        [
            "python -m flows.evaluate_only --env.name math_env --evaluate.num_problems 1000",
            "python -m flows.evaluate_only --model.path starter --evaluate.adapter_dir ./sft_model_code",
        ],
    )

from prefect import flow

from flows.adapters import refs
from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_adapters, check_evaluating
from flows.steps import Steps, from_here
from tasks.evaluation.report import RunReport

DEFAULTS = RunConfig()


@flow(name="evaluate-only", flow_run_name="{config.env.name}: evaluate", **HOOKS)
def evaluate_only(config: RunConfig = DEFAULTS) -> RunReport:
    """Evaluate both, report."""
    config = with_model_at_hand(config, is_trained=False)
    folders = check_adapters(config)
    check_evaluating(config)
    steps = Steps("evaluate only", config)
    steps.compare(refs(folders))
    return steps.finish(f"look at the problems that got worse: {from_here(steps.data_dir)}/report.md")
