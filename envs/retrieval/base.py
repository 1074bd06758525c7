"""What a search gives, and the interface behind which it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from envs.faults import ServiceError
from envs.replies import encodable

_ID_FIELDS = ("id", "_id", "docid")
_TEXT_FIELDS = ("text", "contents", "content")


class SearchError(ServiceError):
    """A search could not be done: the endpoint is down or the corpus cannot be read. Never an empty result."""


@dataclass(frozen=True)
class Document:
    """One text that can be found."""

    id: str
    title: str
    """May be empty."""
    text: str


class Retriever(Protocol):
    """Finds documents. Safe to call from many threads at once."""

    def search(self, query: str, top_k: int) -> list[Document]:
        """At most `top_k` documents, best first; none if nothing fits.

        Raises:
            SearchError: the search could not be done.
        """
        ...


def document_of(row: Mapping[str, Any], default_id: str) -> Document:
    """The document in a row of a corpus or of a retrieval server's answer.

    Its fields are `id`, `title` and `text` or `contents`. Where there is no title, a first line of `contents` in double
    quotes is one, as in the corpora of Search-R1 and FlashRAG.

    Raises:
        ValueError: there is no text in it.
    """
    text = next((row[name] for name in _TEXT_FIELDS if isinstance(row.get(name), str)), None)
    if text is None:
        raise ValueError(f"no text in `text` or `contents`; its fields are {', '.join(map(str, sorted(row)))}")
    title = row.get("title")
    if not isinstance(title, str):
        first, _, rest = text.partition("\n")
        quoted = len(first) > 2 and first[0] == first[-1] == '"' and rest.strip() != ""
        title, text = (first[1:-1], rest) if quoted else ("", text)
    named = next((row[name] for name in _ID_FIELDS if isinstance(row.get(name), str | int)), default_id)
    return Document(encodable(str(named)), encodable(title.strip()), encodable(text.strip()))
