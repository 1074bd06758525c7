from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tasks.evaluation.compare import compare
from tasks.evaluation.plot import before_after_plot
from tasks.evaluation.report import RunReport, promotion_markdown, report_markdown, summary_table
from tasks.training.job import OutOfMemory, TrainCounts, ValidationLosses, ValidationPoint

ROWS = {
    "environment": "math_env",
    "model": "starter",
    "engine": "in_process",
    "cached": "collect, train",
    "episodes requested": "1,500",
    "episodes finished": "1,498",
    "episodes errored": "2",
    "episodes succeeded": "749 (50.0 % of the finished)",
    "turns kept": "740 (760 rejected)",
    "trained": "LoRA, rank 64, alpha 16; 1,234 tokens/s",
    "trained tokens": "123,456",
    "loss first -> last": "1.500 -> 0.250",
    "held-out problems": "12",
    "success before -> after": "0.0 % -> 100.0 %",
    "verdict": "improved (exact paired test, p = 0.00049)",
    "problems better, worse": "12, 0",
}


def counts(tokens):
    return TrainCounts(
        rows=740,
        dropped_overlong=0,
        trained_tokens=tokens,
        steps=9,
        first_loss=1.5,
        last_loss=0.25,
        tokens_per_second=1234.5,
        form="LoRA, rank 64, alpha 16",
    )


@pytest.fixture
def report(play):
    return RunReport(
        flow="collect_and_train",
        env="math_env",
        model="starter",
        engine="in_process",
        requested=1500,
        finished=1498,
        errored=2,
        succeeded=749,
        kept={"shared_model": 740},
        rejected={"episode_failed": 758, "episode_error": 2},
        trained={"shared_model": counts(123456)},
        comparison=compare(play([[0]] * 12), play([[1]] * 12)),
        cached=["collect", "train"],
        files={"data file": Path("data/[math]/x.jsonl")},
        next_steps=["python -m flows.evaluate_only"],
    )


def printed(report):
    console = Console(width=140, file=io.StringIO())
    console.print(summary_table(report))
    return console.file.getvalue()


def test_the_markdown_has_every_row(report):
    markdown = report_markdown(report, Path("before_after.png"))
    for name, value in ROWS.items():
        assert f"| {name} | {value} |" in markdown
    assert "| difference | +100.0 points (95 % interval" in markdown
    assert "![Success before and after](before_after.png)" in markdown
    assert "| episode_failed | 758 |" in markdown
    assert "| data file | data/[math]/x.jsonl |" in markdown
    assert "- python -m flows.evaluate_only" in markdown


def test_the_closing_table_has_every_row_and_where_the_files_are(report):
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed(report).splitlines()]
    for name, value in ROWS.items():
        assert [name, value] in lines
    assert ["data file", "data/[math]/x.jsonl"] in lines
    assert ["next", "python -m flows.evaluate_only"] in lines


def test_stages_that_did_not_run_have_no_row():
    trained = {"shared_model": counts(7)}
    report = RunReport(flow="train_only", env="math_env", model="starter", engine="in_process", trained=trained)
    for text in (printed(report), report_markdown(report)):
        assert "trained tokens" in text
        for absent in ("episodes", "turns kept", "success", "verdict", "cached", "next", "None", "shared_model"):
            assert absent not in text


def test_several_policies_have_rows_of_their_own(report):
    several = replace(
        report, kept={"thinker": 700, "coder": 1040}, trained={"thinker": counts(7), "coder": counts(9000)}
    )
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed(several).splitlines()]
    for row in (
        ["turns kept", "1,740 (760 rejected)"],
        ["of coder", "1,040"],
        ["trained tokens of thinker", "7"],
        ["trained tokens of coder", "9,000"],
        ["loss first -> last of coder", "1.500 -> 0.250"],
    ):
        assert row in lines


def test_memory_that_ran_out_and_what_was_chosen_then_is_told(report):
    halved = [
        OutOfMemory(step=3, tokens_before=8192, tokens=4096),
        OutOfMemory(step=3, tokens_before=4096, tokens=2000),
    ]
    trained = {"shared_model": counts(7).model_copy(update={"out_of_memory": halved})}
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in printed(replace(report, trained=trained)).splitlines()
    ]
    assert ["per-device batch", "8,192 -> 4,096 -> 2,000 tokens: memory ran out in step 3"] in lines


def test_scripted_replies_are_never_reported_as_a_model(report):
    scripted = replace(report, engine="scripted", model="Qwen/Qwen3-1.7B")
    for text in (printed(scripted), report_markdown(scripted)):
        assert "none: scripted replies in place of Qwen/Qwen3-1.7B" in text


def test_no_significant_difference_is_said(report, play):
    same = replace(report, comparison=compare(play([[1], [0]]), play([[1], [0]])))
    assert "| verdict | no significant difference (exact paired test, p = 1) |" in report_markdown(same)
    assert "### Problems that got worse\n\nNone." in report_markdown(same)


def test_a_long_list_of_problems_that_got_worse_is_cut_and_counted(report, play):
    worse = replace(report, comparison=compare(play([[1]] * 30), play([[0]] * 30)))
    markdown = report_markdown(worse)
    assert "| 0000000000000013 | 19 | 1 | 100.0 % | 0.0 % |" in markdown
    assert "| 0000000000000014 | 20 |" not in markdown
    assert "And 10 more." in markdown


def test_errors_in_the_evaluation_are_told(report, play):
    comparison = compare(play([[1], [None], [1]]), play([[1], [1], [1]]))
    text = report_markdown(replace(report, comparison=comparison))
    assert "| held-out problems | 2; 1 pairs left out (1 errored before, 0 after) |" in text


def test_a_promotion_says_what_became_of_it_where_things_are_and_why(play):
    comparison = compare(play([[0]] * 12), play([[1]] * 12))
    text = promotion_markdown("promoted v1", {"promoted": Path("/models")}, comparison)
    assert text.startswith("**promoted v1**\n\n|")
    assert "| promoted | /models |" in text
    assert "| verdict | improved (exact paired test, p = 0.00049) |" in text
    assert "verdict" not in promotion_markdown("kept v1: nothing to train on", {}, None)


def test_a_pipe_in_a_name_does_not_break_the_table(report):
    assert "| model | a\\|b |" in report_markdown(replace(report, model="a|b"))


@pytest.mark.parametrize("levels", [1, 5])
def test_the_plot_is_a_png_and_nothing_else_is_left_behind(play, tmp_path, levels):
    outcomes = [[i % 2] for i in range(20)]
    comparison = compare(play(outcomes, lambda i: i % levels), play([[1]] * 20, lambda i: i % levels))
    before_after_plot(comparison, tmp_path / "plot.png")
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_on_problems_that_were_held_back_is_shown(report):
    first, best, last = (ValidationPoint(step=step, loss=loss) for step, loss in ((0, 1.25), (6, 0.5), (9, 0.75)))
    losses = ValidationLosses(first=first, best=best, last=last, published=best)
    trained = {"shared_model": counts(7).model_copy(update={"validation": losses})}
    text = report_markdown(replace(report, trained=trained))
    assert "| validation loss | 1.250 -> 0.750 (best 0.500, after step 6, published) |" in text
