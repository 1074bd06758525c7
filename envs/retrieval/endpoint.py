"""Search over HTTP: a SearXNG-style JSON API, or a retrieval server as Search-R1 uses it. Answers are kept on disk.

A passing fault (no connection, a time-out, 429, 5xx, an answer that is no JSON) is tried again after a while; what is
still wrong then, or cannot pass, is a SearchError, which stops the run as infrastructure.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from envs.retrieval.base import Document, SearchError, document_of
from envs.retrieval.cache import cache_folder
from envs.retrieval.responses import ResponseCache

EndpointForm = Literal["searxng", "retrieve"]

MAX_RESPONSE_BYTES = 16 << 20
CHUNK_BYTES = 1 << 16
MAX_SHOWN_CHARS = 200
PASSING_STATUSES = {408, 425, 429}
"""Those below 500 that may be gone at the next try."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an endpoint is waited for."""

    timeout_s: float = 30.0
    """Wall-clock limit of one request, until its whole answer is there."""
    tries: int = 6
    first_pause_s: float = 0.5
    """Pause before the second try, on average; it doubles from try to try."""
    longest_pause_s: float = 60.0
    """An endpoint that asks for a longer one is given up."""
    total_s: float = 120.0
    """Most that a search takes with all its tries: less than an env may take, or it would be the env's fault."""


class _Passing(Exception):
    """A fault that may be gone at the next try."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        """The least pause that the endpoint asks for."""


class SearchEndpoint:
    """A search service at `url`, spoken to in one of two forms. Safe to use from many threads at once.

    `searxng`: GET /search?q=...&format=json, answered by `results` with `title`, `url` and `content`.
    `retrieve`: POST /retrieve with `queries`, `topk` and `return_scores`, answered by `result`, one list a query.
    """

    def __init__(self, url: str, form: EndpointForm, cache: ResponseCache, patience: Patience | None = None) -> None:
        self._url = url.rstrip("/")
        self._form: EndpointForm = form
        self._cache = cache
        self._patience = patience or Patience()

    def search(self, query: str, top_k: int) -> list[Document]:
        """What the service finds, or what it found when it was last asked this.

        Raises:
            SearchError: the service does not answer, or refuses, or answers something else.
        """
        request = (self._url, self._form, query, top_k)
        documents = self._cache.get(request)
        if documents is None:
            documents = self._ask(query, top_k)
            self._cache.put(request, documents)
        return documents

    def _ask(self, query: str, top_k: int) -> list[Document]:
        pause_s, give_up = self._patience.first_pause_s, time.monotonic() + self._patience.total_s
        for tries_left in reversed(range(self._patience.tries)):
            try:
                answer = self._fetch(_request(self._url, self._form, query, top_k))
                return self._read(answer, top_k)
            except _Passing as fault:
                if not tries_left:
                    raise SearchError(f"{self._name} failed {self._patience.tries} times; the last: {fault}") from fault
                if fault.pause_s > self._patience.longest_pause_s:
                    raise SearchError(f"{self._name} asks to be left alone for {fault.pause_s:.0f} s") from fault
                next_pause_s = max(fault.pause_s, pause_s * random.uniform(0.5, 1.5))
                if time.monotonic() + next_pause_s + self._patience.timeout_s > give_up:
                    total_s = self._patience.total_s
                    raise SearchError(
                        f"{self._name} did not answer within {total_s:.0f} s; the last: {fault}"
                    ) from fault
                time.sleep(next_pause_s)
                pause_s = min(2 * pause_s, self._patience.longest_pause_s)
        raise AssertionError("the last try returns or raises")

    def _fetch(self, request: urllib.request.Request) -> Any:
        """The JSON value that the service answers."""
        deadline = time.monotonic() + self._patience.timeout_s
        try:
            with _ended_at(deadline) as opener:
                try:
                    with opener.open(request, timeout=self._patience.timeout_s) as response:
                        body = _read_until(response, deadline)
                except urllib.error.HTTPError as error:
                    with error:
                        raise self._refusal(error, _beginning(error)) from error
            if time.monotonic() >= deadline:  # what came may have been cut
                raise TimeoutError("timed out")
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() >= deadline
            cause = TimeoutError("timed out") if late else getattr(error, "reason", error)
            raise _Passing(f"{type(cause if late else error).__name__}: {cause}") from error
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Passing(f"it answered something that is no JSON: {_shown(body)}") from error

    def _refusal(self, error: urllib.error.HTTPError, said: str) -> _Passing | SearchError:
        message = f"{error.code} {error.reason}: {said}".rstrip(": ")
        if error.code >= 500 or error.code in PASSING_STATUSES:
            return _Passing(message, _seconds(error.headers.get("Retry-After")))
        if error.code == 403 and self._form == "searxng":
            message += " (SearXNG answers JSON only if `json` stands under `search.formats` in its settings.yml)"
        return SearchError(f"{self._name} refuses: {message}")

    def _read(self, answer: Any, top_k: int) -> list[Document]:
        try:
            return (_from_searxng if self._form == "searxng" else _from_retrieve)(answer)[:top_k]
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise SearchError(
                f"{self._name} does not answer as a {self._form} endpoint does ({type(error).__name__}: {error}): "
                f"{_shown(json.dumps(answer).encode())}"
            ) from error

    @property
    def _name(self) -> str:
        """The endpoint in words, without what may be secret in its address."""
        parts = urllib.parse.urlsplit(self._url)
        return f"the search endpoint {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def open_endpoint(url: str, form: EndpointForm) -> SearchEndpoint:
    """The service at `url`, with the user's own cache of its answers.

    Raises:
        SearchError: there is no folder for the cache.
    """
    return _opened(url, form, cache_folder() / "responses.sqlite")


@lru_cache(maxsize=8)
def _opened(url: str, form: EndpointForm, cache: Path) -> SearchEndpoint:
    return SearchEndpoint(url, form, ResponseCache(cache))


def _request(url: str, form: EndpointForm, query: str, top_k: int) -> urllib.request.Request:
    place = "/search" if form == "searxng" else "/retrieve"
    address = url if urllib.parse.urlsplit(url).path.endswith(place) else url + place
    headers = {"Accept": "application/json", "User-Agent": "winnow"}
    if form == "searxng":
        return urllib.request.Request(
            f"{address}?{urllib.parse.urlencode({'q': query, 'format': 'json'})}", None, headers
        )
    body = json.dumps({"queries": [query], "topk": top_k, "return_scores": True}).encode()
    return urllib.request.Request(address, body, {**headers, "Content-Type": "application/json"})


def _from_searxng(answer: Mapping[str, Any]) -> list[Document]:
    """Raises _Passing where nothing was found because the engines behind it did not answer."""
    results = answer["results"]
    if not results and answer.get("unresponsive_engines"):
        raise _Passing(f"none of its engines answered: {answer['unresponsive_engines']!r:.200}")
    rows = [{"id": row["url"], "title": row["title"], "text": row.get("content") or row["title"]} for row in results]
    return [document_of(row, default_id="") for row in rows]


def _from_retrieve(answer: Mapping[str, Any]) -> list[Document]:
    [found] = answer["result"]
    return [document_of(hit["document"], default_id="") for hit in found]


@contextmanager
def _ended_at(deadline: float) -> Iterator[urllib.request.OpenerDirector]:
    """An opener whose connections are cut at the deadline, be it amid a status line, a header or a redirect's body."""
    sockets: list[socket.socket] = []

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_kept(http.client.HTTPConnection, sockets), req)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_kept(http.client.HTTPSConnection, sockets), req)

    def cut() -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline - time.monotonic(), cut)
    timer.daemon = True
    timer.start()
    try:
        yield urllib.request.build_opener(Plain, Secure)
    finally:
        timer.cancel()


def _kept(kind: type[http.client.HTTPConnection], sockets: list[socket.socket]) -> Any:
    class Kept(kind):  # type: ignore[misc, valid-type]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Kept


def _read_until(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body; a service that lets it trickle is not waited for longer than one that is silent."""
    body = bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise _Passing(f"it answered more than {MAX_RESPONSE_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return bytes(body)


def _beginning(error: urllib.error.HTTPError) -> str:
    """The first words of what came with a refusal."""
    try:
        return _shown(error.read(4 * MAX_SHOWN_CHARS))
    except (OSError, http.client.HTTPException):
        return ""


def _shown(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:MAX_SHOWN_CHARS]


def _seconds(retry_after: str | None) -> float:
    """Seconds to wait, from a `Retry-After` header: a number or a date. 0 for none and for nonsense."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
