"""Prefect tasks: write `report.md` with its plots, and show it in the Prefect UI; write `report.html`."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.evaluation.plot import before_after_plot, rounds_plot
from tasks.evaluation.report import RunReport, report_markdown
from tasks.reporting.page import PAGE, write_page
from tasks.rollout.artifact import publish_file
from tasks.rollout.journal import journals


@task(name="report", task_run_name="report on {run.env}", cache_policy=NO_CACHE)
def report(run: RunReport, folder: Path) -> Path:
    """Publish the report in `folder`; an older one of its name is replaced."""
    path = folder / "report.md"
    before_after = curve = None
    if run.comparison is not None:
        before_after = Path("before_after.png")
        before_after_plot(run.comparison, folder / before_after)
    if run.rounds:
        curve = Path("rounds.png")
        rounds_plot(run.rounds, folder / curve)
    text = report_markdown(run, before_after, curve)
    with publish_file(path) as tmp:
        tmp.write_text(text, encoding="utf-8")
    create_markdown_artifact(text, key="report", description=f"{run.flow}: {run.env}")
    return path


@task(name="report page", task_run_name="report page of {folder}", cache_policy=NO_CACHE)
def report_page(folder: Path) -> Path | None:
    """Publish the page of the data folder `folder` in it; None if no episodes lie there."""
    if not journals(folder):
        return None
    path = folder / PAGE
    write_page([folder], path)
    return path
