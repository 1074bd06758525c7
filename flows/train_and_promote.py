"""Train on what was collected since the last promotion, and promote the new adapter if it is better.

It takes the data files in collect.data_dir that no promoted adapter was trained on, or those of train.data_path; leaves
out rows of held-out problems; trains the base model; and compares the result on held-out problems with what is promoted
now, at first the bare model. Only what is significantly better takes its place. Versions, pointer and history are in
<train.output_dir>-promoted; python -m flows.promote shows them and rolls back.
"""

from flows.cli import run_command
from flows.config import RunConfig

if __name__ == "__main__":  # before the imports below, which take seconds
    run_command(
        "flows.train_and_promote",
        RunConfig,
        __doc__,
        [
            "python -m flows.train_and_promote --env.name math_env --collect.data_dir sft_data_math-nightly",
            "python -m flows.train_and_promote --train.data_path 'sft_data_code/*.jsonl' --evaluate.num_problems 1000",
        ],
    )

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from shlex import quote

from prefect import flow
from prefect.context import FlowRunContext

from envs.problems.splits import heldout_problems
from flows.adapters import adapter_folders, refs
from flows.hooks import HOOKS
from flows.model_at_hand import with_model_at_hand
from flows.preflight import check_evaluating, check_training
from flows.schedule import run_start
from flows.steps import Steps, from_here
from flows.train_only import with_files
from tasks.dataset.decontaminate import without_held_out
from tasks.dataset.files import data_files_of
from tasks.evaluation.report import RunReport
from tasks.promote import promote
from tasks.promotion.history import BARE_MODEL, Entry, present_version, read_history
from tasks.promotion.promoted import keep, promoted_folder, version_folder
from tasks.rollout.artifact import content_hash

DEFAULTS = RunConfig()


@flow(name="train-and-promote", flow_run_name="{config.env.name}: train and promote", **HOOKS)
def train_and_promote(config: RunConfig = DEFAULTS) -> RunReport:
    """Train on the new data, evaluate, promote what is better, report."""
    config = with_model_at_hand(config)
    if not config.evaluate.num_problems:
        raise ValueError(
            "evaluate.num_problems: found 0; what is promoted must be better on held-out problems: try 200"
        )
    check_training(config)
    check_evaluating(config)
    folder = promoted_folder(config.output_dir.absolute())
    run = _run_id()
    # What was promoted since this run was due counts, or one that is late would train for nothing; a retry of one that
    # has had its say sees what it saw before that.
    history = list(takewhile(lambda entry: entry.run != run, read_history(folder)))
    config, files = _data_files(config, history)
    data = {str(path): sha256 for hashes in files.values() for path, sha256 in hashes.items()}
    heldout = frozenset(problem.hash for problem in heldout_problems(config.play.env_class, config.env))
    clean = {policy: without_held_out(list(paths), heldout) for policy, paths in files.items()}
    config = _with_clean_files(config, {old: new for paths, _ in clean.values() for old, new in paths.items()})
    steps = Steps("train and promote", config)
    steps.note(files={"promoted": folder})
    if missing := [policy for policy, (paths, _) in clean.items() if not paths]:
        why = _why_nothing(missing[0], clean[missing[0]][1], len(clean) > 1)
        return _finish(steps, folder, keep(folder, why, data=data, run=run))
    present = present_version(history)
    before = refs(adapter_folders(config, version_folder(folder, present), "train.output_dir")) if present else {}
    after = steps.train_policies({policy: list(paths.values()) for policy, (paths, _) in clean.items()})
    steps.note(compared_with=present or BARE_MODEL)
    steps.compare(after, before)
    comparison = steps.summary.comparison
    assert comparison is not None
    parts = {place: after[policy] for policy, place in config.adapters_in(Path()).items()}
    return _finish(steps, folder, promote(folder, parts, present, comparison, data, run))


def _data_files(config: RunConfig, history: Sequence[Entry]) -> tuple[RunConfig, dict[str, dict[Path, str]]]:
    """The data files of each policy with their hashes, and the config with their weights."""
    policies = config.play.policy_names
    if config.train.data_path is not None:
        if len(policies) > 1:
            raise ValueError(
                f"train.data_path: {policies[0]} and {policies[1]} are trained, each on files of its own; leave it out "
                "to take those in collect.data_dir"
            )
        config, paths = with_files(config)
        return config, {policies[0]: {path: content_hash(path) for path in paths}}
    used = {sha256 for entry in history if entry.outcome == "promoted" for sha256 in entry.data.values()}
    until = run_start().timestamp()  # what came later is for the next run, also if this one is tried again then
    return config, {
        policy: {
            path.absolute(): sha256
            for path in data_files_of(config.data_dir, policy if len(policies) > 1 else None)
            if path.stat().st_mtime <= until and (sha256 := content_hash(path)) not in used
        }
        for policy in policies
    }


def _with_clean_files(config: RunConfig, clean: Mapping[Path, Path]) -> RunConfig:
    """The config with the weight of each file under the name of the one that takes its place."""
    weights = config.train.data_path
    if not isinstance(weights, dict):
        return config
    named = {str(clean[Path(name)]): weight for name, weight in weights.items() if Path(name) in clean}
    return config.model_copy(update={"train": config.train.model_copy(update={"data_path": named})})


def _why_nothing(policy: str, held_out: int, is_one_of_several: bool) -> str:
    of_policy = f" of the policy {policy}" if is_one_of_several else ""
    if held_out:
        return f"nothing to train on: all {held_out:,} new rows{of_policy} are of held-out problems"
    return f"nothing to train on: no data{of_policy} was collected since the last promotion"


def _run_id() -> str:
    context = FlowRunContext.get()
    assert context and context.flow_run
    return str(context.flow_run.id)


def _finish(steps: Steps, folder: Path, entry: Entry) -> RunReport:
    steps.note(promotion=entry.summary)
    return steps.finish(
        f"see how it came to that, and roll back: python -m flows.promote {quote(str(from_here(folder)))}"
    )
