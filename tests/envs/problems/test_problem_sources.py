"""Problem sources: built-in splits, file layouts, and what is said of files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from envs import load_env_class
from envs.base import EnvConfig, Split
from envs.problems.files import ProblemSourceError
from envs.problems.math_problems import MathProblem, math_problems
from envs.problems.splits import heldout_problems, training_problems

DATA = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real problem files are not at {DATA}")
SPLITS: tuple[Split, ...] = ("starter", "train", "heldout")


@pytest.mark.parametrize("name", ["math_env", "code_env"])
def test_built_in_splits_are_large_and_share_no_content(name: str) -> None:
    env_class = load_env_class(name)
    by_split = {split: {p.hash for p in env_class.problems(None, split)} for split in SPLITS}
    assert {split: len(hashes) >= 1000 for split, hashes in by_split.items()} == dict.fromkeys(SPLITS, True)
    assert len(set.union(*by_split.values())) == sum(map(len, by_split.values()))


@pytest.mark.parametrize("name", ["math_env", "code_env"])
def test_built_in_problems_are_graded_and_worded_in_varied_ways(name: str) -> None:
    problems = load_env_class(name).problems(None, "train")
    assert len({p.difficulty for p in problems}) >= 3
    assert len({" ".join(p.statement.split()[:2]) for p in problems}) >= 5


def test_math_that_differs_in_wording_or_order_only_has_one_content() -> None:
    contents = [p.content for s in SPLITS for p in math_problems(None, s)]
    for problem in math_problems(None, "heldout")[:200]:
        assert isinstance(problem, MathProblem)
        if problem.expression.count("+") == 1 and "-" not in problem.expression and "*" not in problem.expression:
            a, b = problem.expression.split(" + ")
            assert sum(c in {f"math {a} + {b}", f"math {b} + {a}"} for c in contents) == 1


def test_the_answer_of_a_generated_math_problem_is_the_value_of_its_expression() -> None:
    for problem in math_problems(None, "heldout")[:300]:
        assert str(eval(problem.expression)) == problem.answer


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def gsm(n: int) -> dict[str, str]:
    return {"question": f"What is {n} plus 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1:,}"}


def test_a_file_is_split_by_content_and_repeated_rows_count_once(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", *[gsm(n) for n in range(200)], gsm(7), gsm(8))
    train, heldout = math_problems(source, "train"), math_problems(source, "heldout")
    assert len(train) + len(heldout) == 200 == len(math_problems(source, None))
    assert 5 < len(heldout) < 45
    assert not {p.hash for p in train} & {p.hash for p in heldout}


def test_gsm8k_answers_lose_their_commas_and_calculator_marks(tmp_path: Path) -> None:
    (problem,) = math_problems(write(tmp_path / "p.jsonl", gsm(1999)), None)
    assert (problem.answer, problem.solution) == ("2000", "It is 2000.")


def test_parquet_and_jsonl_of_the_same_rows_are_the_same_problems(tmp_path: Path) -> None:
    rows = [gsm(n) for n in range(20)]
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    assert math_problems(str(tmp_path / "p.parquet"), None) == math_problems(write(tmp_path / "p.jsonl", *rows), None)


def test_a_benchmark_is_held_out_whole_and_never_trained_on(tmp_path: Path) -> None:
    dataset = write(tmp_path / "train.jsonl", *[gsm(n) for n in range(50)])
    benchmark = write(tmp_path / "test.jsonl", *[gsm(n) for n in range(40, 60)])
    config = EnvConfig(name="math_env", dataset=dataset, benchmark=benchmark)
    env_class = load_env_class("math_env")
    train, heldout = training_problems(env_class, config), heldout_problems(env_class, config)
    assert (len(train), len(heldout)) == (40, 20)
    assert not {p.hash for p in train} & {p.hash for p in heldout}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"question": "a"', r"p\.jsonl:2: not JSON"),
        ('["a"]', r"p\.jsonl:2: a JSON list; wanted an object"),
        ('{"question": "a", "reply": "b"}', r"p\.jsonl:2: no field 'answer'; its fields are question, reply"),
        ('{"question": "a", "answer": "12"}', r"p\.jsonl:2: .*####"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(ProblemSourceError, match=said):
        math_problems(write(tmp_path / "p.jsonl", gsm(1), row), None)


def test_a_missing_file_lists_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path / "there.jsonl", gsm(1))
    with pytest.raises(ProblemSourceError, match=r"no problem file at .*gone\.jsonl; .* holds there\.jsonl"):
        math_problems(str(tmp_path / "gone.jsonl"), None)


@needs_data
def test_the_real_gsm8k_and_humaneval_files_load() -> None:
    assert len(math_problems(str(DATA / "gsm8k" / "test.jsonl"), None)) == 1319
    assert len(load_env_class("code_env").problems(str(DATA / "humaneval" / "HumanEval.jsonl.gz"), None)) == 164
