"""The steps that flows are made of: each calls its task, brings a cached result here, and notes it for the report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml
from prefect import Task
from rich.console import Console

from flows.config import RunConfig
from tasks.bring import bring_dataset, bring_folder, bring_journal
from tasks.collect import collect
from tasks.compute_stats import compute_stats
from tasks.dataset.records import DatasetRef
from tasks.evaluate import evaluate
from tasks.evaluation.compare import compare
from tasks.evaluation.report import RunReport, summary_table
from tasks.report import report
from tasks.rollout.artifact import Ref
from tasks.rollout.journal import EpisodesRef
from tasks.train import train
from tasks.training.launch import AdapterRef
from tasks.validate import validate

P = ParamSpec("P")
R = TypeVar("R")


class Steps:
    """One run of a flow. `summary` grows with each step."""

    def __init__(self, flow: str, config: RunConfig) -> None:
        self.config = config
        self.data_dir = config.data_dir.absolute()
        self.output_dir = config.output_dir.absolute()
        self.summary = RunReport(
            flow=flow, env=config.env.name, model=config.model.path, engine=_engine_name(config), files={}
        )

    def collect(self) -> DatasetRef:
        """Play, keep what succeeded, count it: a published data file."""
        play = self.config.play
        episodes = bring_journal(self._call(collect, play, self.data_dir), self.data_dir)
        self._note(
            requested=episodes.requested,
            finished=episodes.finished - episodes.errored,
            errored=episodes.errored,
            succeeded=episodes.succeeded,
            files={"episodes": episodes.path.parent},
        )
        dataset = self._call(validate, episodes, play, self.data_dir, self.config.resolved())
        dataset = bring_dataset(dataset, self.data_dir)
        self._call(compute_stats, episodes, dataset)
        self._note(
            kept=dataset.funnel.kept,
            rejected=dataset.funnel.rejected,
            files={"data file": dataset.path, "stats": dataset.stats_path},
        )
        return dataset

    def train(self, data: list[Path]) -> AdapterRef:
        """Fine-tune on data files: a published model folder."""
        config = self.config
        resolved = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True)
        adapter = self._call(train, data, config.model, config.train, self.output_dir, resolved)
        adapter = bring_folder(adapter, self.output_dir)
        counts = adapter.counts
        self._note(
            trained_tokens=counts.trained_tokens,
            loss_first=counts.first_loss,
            loss_last=counts.last_loss,
            files={"model folder": adapter.path},
        )
        return adapter

    def compare(self, adapter: Ref) -> None:
        """Play the held-out problems with the bare model and with the adapter, if any are to be played."""
        if self.config.evaluate.num_problems:
            before, after = self._evaluate(None), self._evaluate(adapter)
            self._note(comparison=compare(before.read(), after.read()))

    def finish(self, *next_steps: str) -> RunReport:
        """Write the report and print the closing table."""
        self._note(next_steps=next_steps, files={"report": self.data_dir / "report.md"})
        self._call(report, self.summary, self.data_dir)
        self.config.save(self.data_dir / "report_config.yaml")
        Console().print(summary_table(self.summary))
        return self.summary

    def command(self, module: str, *arguments: str) -> str:
        """The line that runs another flow on the same env, model and data folder."""
        config = self.config
        line = ["python", "-m", module, "--env.name", config.env.name, "--model.path", config.model.path]
        if config.data_dir != config.default_data_dir:
            line += ["--collect.data_dir", str(config.data_dir)]
        return shlex.join([*line, *arguments])

    def _evaluate(self, adapter: Ref | None) -> EpisodesRef:
        config = self.config
        return self._call(evaluate, config.play, config.evaluate, adapter, self.data_dir)

    def _call(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The task's result, from an earlier run if there is one."""
        state = task(*args, **kwargs, return_state=True)
        result: R = state.result()
        if state.name == "Cached":
            self._note(cached=(*self.summary.cached, task.name))
            print(f"{task.name}: cached, taken from an earlier run", file=sys.stderr, flush=True)
        return result

    def _note(self, files: dict[str, Path] | None = None, **facts: Any) -> None:
        shown = {what: from_here(path) for what, path in (files or {}).items()}
        self.summary = replace(self.summary, files={**self.summary.files, **shown}, **facts)


def _engine_name(config: RunConfig) -> str:
    """What plays, in the report: `auto` is a wish."""
    return "in_process" if config.engine.kind == "auto" else config.engine.kind


def from_here(path: Path) -> Path:
    """The path as a user of this working directory would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
