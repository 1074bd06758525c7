"""What a problem of search_env holds, whether it was generated or read from a file."""

from __future__ import annotations

from dataclasses import dataclass

from envs.problems.files import FileProblem
from envs.retrieval.base import Document


@dataclass(frozen=True)
class Step:
    """One search of a player who knows: what is asked, and the query that finds it."""

    question: str
    query: str


@dataclass(frozen=True, kw_only=True)
class SearchProblem(FileProblem):
    """A question with a short answer that stands in documents."""

    answers: tuple[str, ...]
    """The gold answers, for the judge; any of them is right."""
    steps: tuple[Step, ...]
    """What one who knows searches for; a file does not say."""
    in_world: bool = False
    """Whether it is about the built-in world, whose documents are then searched unless the config says otherwise."""
    paragraphs: tuple[Document, ...] = ()
    """Documents that a file gives with the question, the right ones and others; searched likewise."""
