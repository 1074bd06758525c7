"""Prefect tasks: write `report.md` with its plots, and show it in the Prefect UI; write `report.html`."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifacts import artifact_key, show_file, show_markdown, show_promotion
from tasks.evaluation.plot import before_after_plot, rounds_plot
from tasks.evaluation.report import RunReport, comparison_markdown, points, report_markdown
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
    show_markdown(artifact_key(run.env, "report"), text, f"{run.flow}: {path}")
    if run.comparison is not None:
        found = f"{run.comparison.verdict}: {points(run.comparison.overall.difference)}"
        show_markdown(artifact_key(run.env, "before after"), comparison_markdown(run, run.comparison), found)
    if run.promotion is not None:
        places = {what: path for what, path in run.files.items() if what.startswith(("model folder", "promoted"))}
        show_promotion(run.env, run.promotion, places, run.comparison)
    return path


@task(name="report page", task_run_name="report page of {folder}", cache_policy=NO_CACHE)
def report_page(folder: Path, env: str) -> Path | None:
    """Publish the page of the data folder `folder` in it; None if no episodes lie there."""
    if not journals(folder):
        return None
    path = folder / PAGE
    write_page([folder], path)
    show_file(artifact_key(env, "report page"), path, "Figures, and every episode to read")
    return path
