"""Rows of question files, in the layouts of HotpotQA, 2WikiMultihopQA, MuSiQue and Bamboogle.

    HotpotQA         {"_id": "..", "question": "..", "answer": "..", "type": "bridge", "level": "hard",
                      "context": [["Title", ["A sentence.", " Another."]], ..]}
    2WikiMultihopQA  the same with "evidences": [["subject", "relation", "object"], ..] instead of a level
    MuSiQue          {"id": "2hop__..", "question": "..", "answer": "..", "answer_aliases": ["..", ..],
                      "paragraphs": [{"title": "..", "paragraph_text": ".."}, ..]}
    Bamboogle        {"Question": "..", "Answer": ".."}

On the hub the context is two lists, {"title": [..], "sentences": [[..], ..]}. Other fields are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from envs.grading.text_answer import normalized
from envs.problems.files import Layout, Row, UnsolvableProblem, reader_of
from envs.problems.search_kinds import SearchProblem
from envs.replies import encodable
from envs.retrieval.base import Document

LEVELS = {"easy": 1, "medium": 2, "hard": 3}
"""HotpotQA's levels as difficulties."""
BAMBOOGLE_HOPS = 2

_HOPS = re.compile(r"(\d)hop", re.ASCII)


def from_search_row(row: Row) -> SearchProblem:
    """The problem of a row in one of `SEARCH_LAYOUTS`.

    Raises:
        UnsolvableProblem: no answer to it could be right.
        KeyError, TypeError, ValueError: it fits no layout, or a field is not in the layout's form.
    """
    return _read(row)


def from_hotpot_qa(row: Row) -> SearchProblem:
    """A row of https://github.com/hotpotqa/hotpot."""
    level = LEVELS.get(str(row.get("level")), 0)
    return _pose(row["question"], (row["answer"],), level, _with_sentences(row["context"]))


def from_2wiki(row: Row) -> SearchProblem:
    """A row of https://github.com/Alab-NII/2wikimultihop: as hard as it takes facts."""
    return _pose(row["question"], (row["answer"],), len(row["evidences"]), _with_sentences(row["context"]))


def from_musique(row: Row) -> SearchProblem:
    """A row of https://github.com/StonyBrookNLP/musique: its id begins with the number of hops."""
    if row.get("answerable") is False:
        raise UnsolvableProblem("it is marked as not answerable")
    if not isinstance(row.get("answer_aliases"), list | None):
        raise ValueError("`answer_aliases` is no list")
    hops = _HOPS.match(str(row.get("id", "")))
    answers = (row["answer"], *(row.get("answer_aliases") or ()))
    return _pose(row["question"], answers, int(hops[1]) if hops else 0, _with_texts(row["paragraphs"]))


def from_bamboogle(row: Row) -> SearchProblem:
    """A row of https://github.com/ofirpress/self-ask: no documents come with it."""
    return _pose(row["Question"], (row["Answer"],), BAMBOOGLE_HOPS, ())


def _pose(question: Any, answers: tuple[Any, ...], difficulty: int, paragraphs: Iterable[Document]) -> SearchProblem:
    statement = " ".join(_text(question, "the question").split())
    golds = tuple(dict.fromkeys(_text(answer, "an answer") for answer in answers))
    if not normalized(statement):
        raise UnsolvableProblem("its question is empty")
    if not normalized(golds[0]):
        raise UnsolvableProblem(f"its answer {golds[0]!r} has no word that could be matched")
    return SearchProblem(
        statement=statement,
        content=f"question {normalized(statement)}",
        difficulty=difficulty,
        answers=golds,
        steps=(),
        paragraphs=tuple(paragraphs),
    )


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r:.50}; wanted text")
    return encodable(value.strip())


def _with_sentences(context: Any) -> Iterator[Document]:
    pairs = zip(context["title"], context["sentences"], strict=True) if isinstance(context, Mapping) else context
    for number, (title, sentences) in enumerate(pairs):
        if isinstance(sentences, str):
            raise ValueError(f"paragraph {number + 1} of `context` is text; wanted a list of sentences")
        text = " ".join(_text(sentence, "a sentence of `context`") for sentence in sentences)
        yield Document(str(number), _text(title, "a title in `context`"), text)


def _with_texts(paragraphs: Any) -> Iterator[Document]:
    for number, paragraph in enumerate(paragraphs):
        title, text = _text(paragraph["title"], "a title"), _text(paragraph["paragraph_text"], "a paragraph")
        yield Document(str(number), title, text)


SEARCH_LAYOUTS = (
    Layout("MuSiQue", ("question", "answer", "paragraphs"), from_musique),
    Layout("2WikiMultihopQA", ("question", "answer", "context", "evidences"), from_2wiki),
    Layout("HotpotQA", ("question", "answer", "context"), from_hotpot_qa),
    Layout("Bamboogle", ("Question", "Answer"), from_bamboogle),
)
_read = reader_of(SEARCH_LAYOUTS)
