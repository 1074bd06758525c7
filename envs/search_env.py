"""Search: answer a question from documents that are found, alone or together with a partner who does the searching."""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from envs.base import Ask, Env, EnvOptions, Play, Split
from envs.grading.text_answer import best_f1, is_exact_match
from envs.problems.search_kinds import SearchProblem
from envs.problems.search_problems import search_problems
from envs.problems.search_world import world
from envs.retrieval.base import Document, Retriever, SearchError
from envs.retrieval.bm25 import index_in_memory, index_on_disk
from envs.retrieval.corpus import corpus_digest, open_corpus
from envs.retrieval.endpoint import EndpointForm, open_endpoint

SOLVE = """Answer the question from what you find. Reply with one line:
search: words to look for
or
answer: the answer, nothing else

Question: {statement}"""

DECOMPOSE = """Answer the question. A partner searches for you. Reply with one line:
ask: what to find out
or
answer: the answer, nothing else

Question: {statement}"""

FIND = """Find this out. Reply with one line:
search: words to look for
or
report: what you found

Wanted: {request}"""

NOTHING = "- nothing new"
NO_LINE = "Your last reply had no such line."
LAST = "No searches are left. Reply with the line {end}:"

MAX_QUERY_CHARS = 200
MAX_REQUEST_CHARS = 500
MAX_ANSWER_CHARS = 500
MAX_TITLE_CHARS = 100
MAX_DOCUMENT_CHARS = 600


class SearchOptions(EnvOptions):
    """What is searched."""

    corpus: str | None = Field(
        None,
        description="Documents to search: a .jsonl, .jsonl.gz or .parquet file with id, title, text or contents. "
        "Default: the paragraphs that come with a question, or the built-in world.",
    )
    endpoint: str | None = Field(None, description="A search service to ask instead, e.g. http://127.0.0.1:8000.")
    endpoint_form: EndpointForm = Field(
        "retrieve", description="How it is asked: retrieve (Search-R1's retrieval server) or searxng (its JSON API)."
    )
    top_k: int = Field(3, ge=1, le=20, description="Most documents that one search shows.")

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_web_address(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError("wanted http://host:port or https://host/path, without a user, password or query")
        return endpoint

    @model_validator(mode="after")
    def _one_thing_is_searched(self) -> Self:
        if self.corpus is not None and self.endpoint is not None:
            raise ValueError("corpus and endpoint are both given; wanted one of them")
        return self

    def identity(self) -> dict[str, Any]:
        """What of these settings changes an episode: the corpus by its content, whatever its path."""
        corpus = None if self.corpus is None else corpus_digest(Path(self.corpus).expanduser())
        return {**self.model_dump(mode="json"), "corpus": corpus}


class SearchEnv(Env):
    """One agent who searches and answers, or a reasoner who asks a partner to search and answers from the reports.

    A turn is one line: a search, a request, a report, or the answer, which ends the episode. Players see what was found
    and no more. The answer is judged by exact match with a gold one; its F1 is the reward of every turn that was in the
    right form. If it is right, the last turn of each player has succeeded; the ones before only led there.
    """

    roles = ("search_reasoning_agent", "web_search_agent")
    seatings = (("search_single_agent",), roles)
    Options = SearchOptions

    problem: SearchProblem
    options: SearchOptions

    @classmethod
    def problems(cls, source: str | None, split: Split | None) -> Sequence[SearchProblem]:
        return search_problems(source, split)

    def play(self) -> Play:
        self._retriever = self._open_retriever()
        self._searches: list[dict[str, Any]] = []
        answer = yield from (self._play_together() if len(self.seats) == 2 else self._play_alone())
        self.metadata = {"searches": self._searches, "answer": answer}
        self.success = answer is not None and is_exact_match(answer, self.problem.answers)
        reward = best_f1(answer, self.problem.answers) if answer is not None else 0.0
        last = {ask.role: ask for ask in self.asks}
        for ask in self.asks:
            if ask.success is None:
                ask.success, ask.reward = self.success and ask is last[ask.role], reward

    def _play_alone(self) -> Generator[list[Ask], list[str], str | None]:
        return (yield from self._search_until("answer", self.seats[0], SOLVE.format(statement=self.problem.statement)))

    def _play_together(self) -> Generator[list[Ask], list[str], str | None]:
        reasoner, searcher = self.seats
        lines = [DECOMPOSE.format(statement=self.problem.statement), ""]
        while left := self._turns_left_of(reasoner):
            can_ask = left > 1 and self._turns_left_of(searcher) > 0
            said = yield from self._turn(reasoner, lines, "ask" if can_ask else None, "answer")
            if said is None:
                lines.append(NO_LINE)
                continue
            tag, text = said
            if tag == "answer":
                return text[:MAX_ANSWER_CHARS]
            request = text[:MAX_REQUEST_CHARS]
            report = yield from self._search_until("report", searcher, FIND.format(request=request))
            lines += [f"ask: {request}", f"report: {report or 'nothing'}"]
        return None

    def _search_until(self, end: str, role: str, prompt: str) -> Generator[list[Ask], list[str], str | None]:
        """Let `role` search until it ends with the line `end: ...`: what that says, None if its turns run out."""
        lines = [prompt, ""]
        shown: set[Document] = set()
        while left := self._turns_left_of(role):
            said = yield from self._turn(role, lines, "search" if left > 1 else None, end)
            if said is None:
                lines.append(NO_LINE)
                continue
            tag, text = said
            if tag == end:
                return text[:MAX_ANSWER_CHARS]
            query = text[:MAX_QUERY_CHARS]
            found = self._search(role, query)
            lines += [f"search: {query}", *([_show(d) for d in found if d not in shown] or [NOTHING])]
            shown.update(found)
        return None

    def _turn(
        self, role: str, lines: Sequence[str], go_on: str | None, end: str
    ) -> Generator[list[Ask], list[str], tuple[str, str] | None]:
        """One reply of `role`: its tag, `go_on` or `end`, and what the line says; None if it is in another form.

        Without `go_on` only `end` will do, and the player is told so.
        """
        said_last = [] if go_on else [LAST.format(end=end)]
        ask = self.ask(role, "\n".join([*lines, *said_last]).rstrip())
        (reply,) = yield [ask]
        said = tagged_line(reply, (go_on, end) if go_on else (end,))
        if said is None:
            ask.success, ask.reward = False, 0.0
        return said

    def _search(self, role: str, query: str) -> list[Document]:
        found = self._retriever.search(query, self.options.top_k)
        documents = [{"id": document.id, "title": document.title[:MAX_TITLE_CHARS]} for document in found]
        self._searches.append({"agent_name": role, "query": query, "documents": documents})
        return found

    def _turns_left_of(self, role: str) -> int:
        return self.config.max_turns - sum(ask.role == role for ask in self.asks)

    def _open_retriever(self) -> Retriever:
        if self.options.endpoint is not None:
            return open_endpoint(self.options.endpoint, self.options.endpoint_form)
        if self.options.corpus is not None:
            return open_corpus(Path(self.options.corpus).expanduser())
        if self.problem.in_world:
            return index_on_disk(world().digest, lambda: world().documents)
        if self.problem.paragraphs:
            return index_in_memory(self.problem.paragraphs)
        raise SearchError(
            "there is nothing to search: the questions come without paragraphs. "
            "Set env.options.corpus to a file of documents, or env.options.endpoint to a search service."
        )

    def gold(self, ask: Ask) -> str:
        # The answer or report comes with the last turn at the latest, even if a search would still be due.
        steps, answer = self.problem.steps, self.problem.answers[0]
        is_last = ask.turn_idx + 1 >= self.config.max_turns
        if ask.role == "search_reasoning_agent":
            request = " ".join(step.question for step in steps)
            return f"answer: {answer}" if ask.turn_idx or is_last or not steps else f"ask: {request}"
        if ask.turn_idx < len(steps) and not is_last:
            return f"search: {steps[ask.turn_idx].query}"
        return f"{'report' if ask.role == 'web_search_agent' else 'answer'}: {answer}"


_MARKS = " \t*_`>#-"
"""What Markdown may put around a tag or a text."""


def tagged_line(reply: str, tags: Sequence[str]) -> tuple[str, str] | None:
    """The last line of a reply that begins with one of `tags` and a colon: the tag, and the text after it.

    Case and the marks of Markdown do not count. None if there is no such line with text on it.
    """
    for line in reversed(reply.splitlines()):
        head, colon, rest = line.partition(":")
        tag, text = head.strip(_MARKS).lower(), _on_one_line(rest).strip(_MARKS)
        if colon and tag in tags and text:
            return tag, text
    return None


def _on_one_line(text: str) -> str:
    """The text with single spaces for white space and control characters: it can forge no line of a prompt."""
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def _show(document: Document) -> str:
    """A document on one line, cut to a length that fits a prompt."""
    title, text = _on_one_line(document.title), _on_one_line(document.text)
    if len(text) > MAX_DOCUMENT_CHARS:
        text = text[:MAX_DOCUMENT_CHARS].rpartition(" ")[0] + " ..."
    return f"- {text}" if title in text else f"- {title[:MAX_TITLE_CHARS]}: {text}"
