"""The steps that flows are made of: each calls its task, brings a cached result here, and notes it for the report."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml
from prefect import Task
from rich.console import Console

from flows.adapters import collecting_adapters
from flows.config import RunConfig
from tasks.bring import bring_control, bring_dataset, bring_folder, bring_journal
from tasks.check_problems import check_problems
from tasks.collect import collect
from tasks.compute_stats import compute_stats
from tasks.dataset.records import DatasetRef
from tasks.dataset.relabel import Control, ControlRef
from tasks.engines import engine_kind
from tasks.evaluate import evaluate
from tasks.evaluation.compare import Comparison, compare
from tasks.evaluation.config import EvaluateConfig
from tasks.evaluation.report import RunReport, series_of, summary_table, verdict_markdown
from tasks.evaluation.series import write_series
from tasks.events import tell_if_success_fell
from tasks.relabel import relabel
from tasks.report import report, report_page
from tasks.rollout.artifact import Ref
from tasks.rollout.journal import EpisodesRef
from tasks.rollout.problem_check import needs_check
from tasks.train import train
from tasks.training.launch import AdapterRef
from tasks.training.model_folder.card import add_evaluation
from tasks.validate import validate

P = ParamSpec("P")
R = TypeVar("R")


class Steps:
    """One run of a flow. `summary` grows with each step."""

    def __init__(self, flow: str, config: RunConfig, part_of: Steps | None = None) -> None:
        """`part_of`: the run that this one is a part of, if it is."""
        self.config = config
        self._is_part = part_of is not None
        self._made: set[tuple[str, str]] = part_of._made if part_of else set()
        """Results that this run has made itself; what finds them again is not said to come from an earlier one."""
        self.data_dir = config.data_dir.absolute()
        self.summary = RunReport(
            flow=flow, env=config.env.name, model=_model_name(config), engine=_engine_name(config), files={}
        )

    def collect(self) -> dict[str, DatasetRef]:
        """Play, keep what succeeded, count it: a published data file for each policy."""
        return self.keep(self.play(collecting_adapters(self.config)))

    def play(self, adapters: Mapping[str, Ref]) -> EpisodesRef:
        """Play the episodes to train on. `adapters`: those of the policies that do not play as the bare model."""
        if adapters:
            self.note(played_with=", ".join(str(from_here(adapter.path)) for adapter in adapters.values()))
        episodes = self._call(collect, self.config.play, adapters, self._left_out(None), self.data_dir)
        episodes = bring_journal(episodes, self.data_dir)
        self.note(
            requested=episodes.requested,
            finished=episodes.finished - episodes.errored,
            errored=episodes.errored,
            succeeded=episodes.succeeded,
            files={"episodes": episodes.path.parent},
        )
        return episodes

    def keep(self, episodes: EpisodesRef) -> dict[str, DatasetRef]:
        """Keep what succeeded and count it: a published data file for each policy."""
        datasets = {policy: self._keep(episodes, policy) for policy in self.config.play.policy_names}
        if not self._is_part:  # rounds have batches, too, and are no nights
            tell_if_success_fell(next(iter(datasets.values())), self.config.collect.max_success_drop)
        return datasets

    def relabel(self, episodes: EpisodesRef, policy: str, control: Control, most: int) -> ControlRef:
        """The data file of a control, `most` rows at most."""
        ref = self._call(relabel, episodes, self.config.play, policy, control, most, self.data_dir)
        return bring_control(ref, self.data_dir)

    def _keep(self, episodes: EpisodesRef, policy: str) -> DatasetRef:
        config = self.config
        dataset = self._call(validate, episodes, config.play, policy, self.data_dir, config.resolved())
        dataset = bring_dataset(dataset, self.data_dir)
        self._call(compute_stats, episodes, dataset, config.env.name, config.collect.enough_successes, policy)
        if config.collect.storage is not None:
            self._put_results(config.collect.storage, episodes, dataset)
        self.note(
            kept={**self.summary.kept, policy: dataset.funnel.kept},
            rejected=Counter(self.summary.rejected) + Counter(dataset.funnel.rejected),
            files={self._of("data file", policy): dataset.path, self._of("stats", policy): dataset.stats_path},
        )
        return dataset

    def _put_results(self, storage: str, episodes: EpisodesRef, dataset: DatasetRef) -> None:
        """Copy a data file, and what lies beside it, to the object store."""
        from tasks.rollout.store import put_results  # the client takes a while to import

        files = [dataset.rejected_path, dataset.config_path, dataset.stats_path, dataset.path]
        put_results(storage, episodes.path.parent.name, files)

    def train_policies(self, data: Mapping[str, list[Path]]) -> dict[str, AdapterRef]:
        """Fine-tune each policy on its own data files, one after the other: a published model folder for each."""
        return {policy: self.train(data[policy], policy, folder) for policy, folder in self.config.adapter_dirs.items()}

    def train(self, data: list[Path], policy: str, folder: Path | None = None) -> AdapterRef:
        """Fine-tune one policy on data files: a published model folder, the run's own unless another one is given."""
        config = self.config
        folder = (folder or config.output_dir).absolute()
        resolved = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True)
        trained = self._call(train, data, config.model, config.train_of(policy), folder, resolved, config.env.name)
        adapter = bring_folder(trained, folder)
        self.note(
            trained={**self.summary.trained, policy: adapter.counts},
            audits={**self.summary.audits, **({policy: adapter.audit} if adapter.audit else {})},
            files={self._of("model folder", policy): adapter.path},
        )
        return adapter

    def compare(self, adapters: Mapping[str, Ref], before: Mapping[str, Ref] | None = None) -> None:
        """Measure on held-out problems what the adapters change, if any are to be played; their cards say so.

        Args:
            before: what they are compared with, by default the bare model.
        """
        if self.config.evaluate.num_problems:
            self.note(comparison=self.measure(before or {}, adapters))
            for adapter in adapters.values():
                add_evaluation(adapter.path, verdict_markdown(self.summary))

    def measure(self, before: Mapping[str, Ref], after: Mapping[str, Ref]) -> Comparison:
        """Play the held-out problems with the adapters of either side; none is the bare model."""
        left_out = self._left_out(self.config.evaluate)
        return compare(self._evaluate(before, left_out).read(), self._evaluate(after, left_out).read())

    def finish(self, *next_steps: str) -> RunReport:
        """Write the report and print the closing table."""
        self.note(next_steps=next_steps, files={"report": self.data_dir / "report.md"})
        write_series(self.data_dir, series_of(self.summary))  # the page below shows it
        if page := self._call(report_page, self.data_dir, self.config.env.name):
            self.note(files={"report to look at": page})
        self.report()
        Console().print(summary_table(self.summary))
        return self.summary

    def report(self) -> None:
        """Write the report as it is now."""
        self.config.save(self.data_dir / "report_config.yaml")
        self._call(report, self.summary, self.data_dir)

    def command(self, module: str, *arguments: str) -> str:
        """The line that runs another flow on the same env, model and data folder."""
        config = self.config
        line = ["python", "-m", module, "--env.name", config.env.name, "--model.path", config.model.path]
        if config.data_dir != config.default_data_dir:
            line += ["--collect.data_dir", str(config.data_dir)]
        return shlex.join([*line, *arguments])

    def _evaluate(self, adapters: Mapping[str, Ref], left_out: frozenset[str]) -> EpisodesRef:
        config = self.config
        episodes = self._call(evaluate, config.play, config.evaluate, adapters, left_out, self.data_dir)
        return bring_journal(episodes, self.data_dir)

    def _left_out(self, of: EvaluateConfig | None) -> frozenset[str]:
        """Problems, by hash, that are not played because their own reference answer does not win."""
        if not needs_check(self.config.env):
            return frozenset()
        check = self._call(check_problems, self.config.play, of)
        self.note(left_out={**self.summary.left_out, **check.failures})
        return check.left_out

    def _of(self, what: str, policy: str) -> str:
        """What a file is, and whose, if there are several policies."""
        return f"{what} of {policy}" if len(self.config.play.policy_names) > 1 else what

    def _call(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The task's result, from an earlier run if there is one."""
        state = task(*args, **kwargs, return_state=True)
        result: R = state.result()
        made = (task.name, repr(result))
        if state.name != "Cached":
            self._made.add(made)
        elif made not in self._made:
            self.note(cached=(*self.summary.cached, task.name))
            print(f"{task.name}: cached, taken from an earlier run", file=sys.stderr, flush=True)
        return result

    def note(self, files: dict[str, Path] | None = None, **facts: Any) -> None:
        """Add to the summary."""
        shown = {what: from_here(path) for what, path in (files or {}).items()}
        self.summary = replace(self.summary, files={**self.summary.files, **shown}, **facts)


def _model_name(config: RunConfig) -> str:
    """What is played, in the report."""
    return config.engine.model if config.engine.kind == "openai_http" and config.engine.model else config.model.path


def _engine_name(config: RunConfig) -> str:
    """What plays, in the report: `auto` is a wish."""
    return engine_kind(config.engine)


def from_here(path: Path) -> Path:
    """The path as a user of this working directory would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
