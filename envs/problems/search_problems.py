"""Problems for search_env: questions about a fictional world, and files in the layouts of published question sets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from envs.base import Split
from envs.problems.files import load_problems
from envs.problems.search_files import from_search_row
from envs.problems.search_kinds import SearchProblem, Step
from envs.problems.search_world import RELATIONS, Land, world
from envs.problems.splits import select_split

SPLIT_SIZES: dict[Split, int] = {"starter": 6_000, "train": 3_000, "heldout": 1_000}


def search_problems(source: str | None, split: Split | None) -> Sequence[SearchProblem]:
    """Built-in problems, or those of a file in the layout of HotpotQA, 2WikiMultihopQA, MuSiQue or Bamboogle."""
    if source is not None:
        return select_split(load_problems(source, from_search_row), split)
    return builtin(split) if split else [p for s in SPLIT_SIZES for p in builtin(s)]


CHAINS = {
    "born": ("mayor", "river", "settled"),
    "employer": ("founder", "opened", "seat"),
    "teacher": ("born", "employer", "teacher"),
    "founder": ("born", "teacher"),
    "seat": ("mayor", "river", "settled"),
    "mayor": ("born", "employer", "teacher"),
}
"""Two hops: the first fact's object is the second one's subject."""
GAPS = {
    "opened": "How many years after {a} did {b} open?",
    "settled": "How many years after {a} was {b} first settled?",
}
"""Two facts and the years between them."""


@cache
def builtin(split: Split) -> tuple[SearchProblem, ...]:
    """The questions about the split's own land: the same ones in every process, easy and hard ones mixed.

    Graded 1 for one fact, 2 for two facts of which the second can only be asked for when the first is known, 3 for two
    facts and a subtraction. An answer never stands in its question.
    """
    rng = random.Random(f"search_env {split}")
    land = world().lands[split]
    found: dict[str, SearchProblem] = {}
    wanted = 0
    for pose, percent in ((_one_hop, 36), (_two_hops, 34), (_gap, 30)):
        wanted += SPLIT_SIZES[split] * percent // 100
        while len(found) < wanted:
            problem = pose(land, rng)
            if problem.answers[0] not in problem.statement:
                found.setdefault(problem.content, problem)
    return tuple(rng.sample(list(found.values()), len(found)))


def _one_hop(land: Land, rng: random.Random) -> SearchProblem:
    name = rng.choice(list(RELATIONS))
    subject = rng.choice(list(land.facts[name]))
    question = rng.choice(RELATIONS[name].questions).format(s=subject)
    return SearchProblem(
        statement=question,
        content=f"search {name} of {subject}",
        difficulty=1,
        answers=_answers(name, land.facts[name][subject]),
        steps=(Step(question, _query(name, subject)),),
        in_world=True,
    )


def _two_hops(land: Land, rng: random.Random) -> SearchProblem:
    first = rng.choice(list(CHAINS))
    second = rng.choice(CHAINS[first])
    subject = rng.choice(list(land.facts[first]))
    between = land.facts[first][subject]
    asked = rng.choice(RELATIONS[second].questions)
    return SearchProblem(
        statement=asked.format(s=RELATIONS[first].phrase.format(s=subject)),
        content=f"search {second} of {first} of {subject}",
        difficulty=2,
        answers=_answers(second, land.facts[second][between]),
        steps=(
            Step(RELATIONS[first].questions[0].format(s=subject), _query(first, subject)),
            Step(asked.format(s=f"that {RELATIONS[second].of}"), _query(second, between)),
        ),
        in_world=True,
    )


def _gap(land: Land, rng: random.Random) -> SearchProblem:
    name = rng.choice(list(GAPS))
    years = {subject: int(year) for subject, year in land.facts[name].items()}
    one = rng.choice(list(years))
    other = rng.choice([subject for subject in years if years[subject] != years[one]])
    earlier, later = sorted((one, other), key=lambda subject: years[subject])
    gap = years[later] - years[earlier]
    return SearchProblem(
        statement=GAPS[name].format(a=earlier, b=later),
        content=f"search years from {name} of {earlier} to {later}",
        difficulty=3,
        answers=(str(gap), f"{gap} years"),
        steps=tuple(
            Step(RELATIONS[name].questions[0].format(s=subject), _query(name, subject)) for subject in (earlier, later)
        ),
        in_world=True,
    )


def _query(relation: str, subject: str) -> str:
    return f"{subject} {RELATIONS[relation].keyword}"


def _answers(relation: str, obj: str) -> tuple[str, ...]:
    return (obj, f"river {obj}", f"{obj} river") if relation == "river" else (obj,)
