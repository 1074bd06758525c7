"""Search over HTTP, against a real server on this machine that behaves well and badly."""

from __future__ import annotations

import email.utils
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from envs.base import EnvConfig
from envs.retrieval.base import Document, SearchError
from envs.retrieval.endpoint import EndpointForm, Patience, SearchEndpoint, open_endpoint
from envs.retrieval.responses import ResponseCache

VASK = Document("7", "Vask", "Vask lies on the river Orva.")
HIT = {"document": {"id": "7", "contents": '"Vask"\nVask lies on the river Orva.'}, "score": 3.5}
FOUND = json.dumps({"result": [[HIT]]}).encode()

Answer = Callable[[BaseHTTPRequestHandler], None]


class Service:
    """A server whose next answers are put into `script`; the last one goes for all requests after it."""

    def __init__(self) -> None:
        self.script: list[Answer] = [say(200, FOUND)]
        self.requests: list[tuple[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append((self.path, json.loads(body) if body else None))
                answer = service.script.pop(0) if len(service.script) > 1 else service.script[0]
                answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def say(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def wait(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def cut(handler: BaseHTTPRequestHandler) -> None:
    say(200, FOUND[:20], Content_Length="500")(handler)
    handler.close_connection = True


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.stop()


@pytest.fixture
def cache(tmp_path: Path) -> ResponseCache:
    return ResponseCache(tmp_path / "responses.sqlite")


QUICK = Patience(timeout_s=0.3, tries=3, first_pause_s=0.01, longest_pause_s=2.0)


def endpoint(
    service: Service, cache: ResponseCache, form: EndpointForm = "retrieve", patience: Patience = QUICK
) -> SearchEndpoint:
    return SearchEndpoint(service.url, form, cache, patience)


def test_a_retrieval_server_is_asked_as_search_r1_asks_it(service: Service, cache: ResponseCache) -> None:
    assert endpoint(service, cache).search("river of Vask", 4) == [VASK]
    assert service.requests == [("/retrieve", {"queries": ["river of Vask"], "topk": 4, "return_scores": True})]


def test_searxng_is_asked_for_json_and_its_results_are_documents(service: Service, cache: ResponseCache) -> None:
    results = [{"title": f"T{n}", "url": f"http://a/{n}", "content": f"text {n}", "engine": "x"} for n in range(5)]
    results[1]["content"] = ""
    service.script = [say(200, json.dumps({"query": "q", "results": results}).encode())]
    found = endpoint(service, cache, "searxng").search("cafés & more?", 2)
    assert found == [Document("http://a/0", "T0", "text 0"), Document("http://a/1", "T1", "T1")]
    ((path, body),) = service.requests
    assert (urlsplit(path).path, body) == ("/search", None)
    assert parse_qs(urlsplit(path).query) == {"q": ["cafés & more?"], "format": ["json"]}


def test_an_address_may_name_the_place_itself(service: Service, cache: ResponseCache) -> None:
    assert SearchEndpoint(f"{service.url}/v1/retrieve/", "retrieve", cache, QUICK).search("q", 1) == [VASK]
    assert service.requests[0][0] == "/v1/retrieve"


@pytest.mark.parametrize(
    "fault",
    [
        say(500, b"oops"),
        say(503),
        say(429),
        say(408),
        say(200, b"<html>busy</html>"),
        say(200, b"\xff\xfe"),
        say(200, b"[" * 100_000),
        reset,
        cut,
        wait,
        trickle,
    ],
    ids=["500", "503", "429", "408", "html", "bytes", "deep", "reset", "cut", "slow", "trickle"],
)
def test_a_fault_that_passes_is_tried_again(service: Service, cache: ResponseCache, fault: Answer) -> None:
    service.script = [fault, say(200, FOUND)]
    assert endpoint(service, cache).search("q", 1) == [VASK]
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (say(500, b"disk   full\n"), r"failed 3 times; the last: 500 Internal Server Error: disk full"),
        (say(200, b"<html>"), r"no JSON: <html>"),
        (reset, r"failed 3 times"),
        (wait, r"failed 3 times; the last: TimeoutError: timed out"),
        (trickle, r"failed 3 times; the last: TimeoutError: timed out"),
    ],
    ids=["500", "html", "reset", "slow", "trickle"],
)
def test_a_fault_that_stays_stops_the_run(service: Service, cache: ResponseCache, fault: Answer, said: str) -> None:
    service.script = [fault]
    with pytest.raises(SearchError, match=said) as caught:
        endpoint(service, cache).search("q", 1)
    assert len(service.requests) == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 503 X\r\nContent-Length: 9999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=",
    ],
    ids=["header", "error", "chunk"],
)
@pytest.mark.timeout(20)
def test_an_endpoint_that_drips_is_left_at_the_deadline(cache: ResponseCache, start: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(start)
            while True:
                connection.sendall(b"a")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        accept = threading.Thread(target=lambda: drip(server.accept()[0]), daemon=True)
        accept.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SearchError, match=r"timed out|503"):
            SearchEndpoint(url, "retrieve", cache, Patience(timeout_s=0.5, tries=1)).search("Vask", 3)
        accept.join()


def test_all_tries_together_take_no_longer_than_an_env_may(service: Service, cache: ResponseCache) -> None:
    service.script = [say(503)] * 6
    patience = Patience(timeout_s=0.2, first_pause_s=0.3, total_s=0.9)
    began = time.monotonic()
    with pytest.raises(SearchError, match=r"did not answer within 1 s; the last: .*503"):
        endpoint(service, cache, patience=patience).search("Vask", 3)
    assert time.monotonic() - began < 0.9
    assert len(service.requests) < 6
    assert Patience().total_s < EnvConfig().timeout_s


@pytest.mark.parametrize("document", ["text", None, 7])
def test_documents_in_a_wrong_form_stop_the_run(service: Service, cache: ResponseCache, document: object) -> None:
    service.script = [say(200, json.dumps({"result": [[{"document": document, "score": 1}]]}).encode())]
    with pytest.raises(SearchError, match="does not answer as a retrieve endpoint does"):
        endpoint(service, cache).search("Vask", 3)


def test_an_endpoint_that_is_down_stops_the_run(cache: ResponseCache) -> None:
    service = Service()
    service.stop()
    with pytest.raises(SearchError, match=rf"the search endpoint {service.url} failed 3 times; .*refused"):
        endpoint(service, cache).search("q", 1)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_shown_and_not_tried_again(service: Service, cache: ResponseCache, status: int) -> None:
    service.script = [say(status, b'{"detail": "no such index"}')]
    with pytest.raises(SearchError, match=rf"refuses: {status} .*no such index"):
        endpoint(service, cache).search("q", 1)
    assert len(service.requests) == 1


def test_searxng_that_speaks_no_json_is_told_apart(service: Service, cache: ResponseCache) -> None:
    service.script = [say(403)]
    with pytest.raises(SearchError, match=r"403.*search\.formats"):
        endpoint(service, cache, "searxng").search("q", 1)


def test_engines_that_did_not_answer_searxng_are_not_an_empty_result(service: Service, cache: ResponseCache) -> None:
    silent = json.dumps({"results": [], "unresponsive_engines": [["google", "timeout"]]}).encode()
    service.script = [say(200, silent)]
    with pytest.raises(SearchError, match=r"none of its engines answered: .*google"):
        endpoint(service, cache, "searxng").search("q", 1)
    service.script = [say(200, b'{"results": [], "unresponsive_engines": []}')]
    assert endpoint(service, cache, "searxng").search("q", 1) == []


def test_as_long_is_waited_as_the_endpoint_asks_for(service: Service, cache: ResponseCache) -> None:
    service.script = [say(429, Retry_After="1"), say(200, FOUND)]
    started = time.monotonic()
    assert endpoint(service, cache).search("q", 1) == [VASK]
    assert 1.0 <= time.monotonic() - started < 3.0


@pytest.mark.parametrize("as_date", [False, True])
def test_an_endpoint_that_asks_for_an_hour_is_given_up_at_once(
    service: Service, cache: ResponseCache, as_date: bool
) -> None:
    header = email.utils.formatdate(time.time() + 3600, usegmt=True) if as_date else "3600"
    service.script = [say(429, Retry_After=header)]
    with pytest.raises(SearchError, match=r"asks to be left alone for 3[56]\d\d s"):
        endpoint(service, cache).search("q", 1)
    assert len(service.requests) == 1


@pytest.mark.parametrize("header", ["", "soon", "-5", "1e9", "²", "Wed, 99 Foo 2020", email.utils.formatdate(0)])
def test_a_nonsensical_or_past_retry_after_is_passed_over(service: Service, cache: ResponseCache, header: str) -> None:
    service.script = [say(503, Retry_After=header.encode().decode("latin-1")), say(200, FOUND)]
    assert endpoint(service, cache).search("q", 1) == [VASK]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"result": []}',
        b'{"result": [[{"score": 1}]]}',
        b'{"result": [[{"document": {"id": 1}}]]}',
        b"3",
    ],
)
def test_an_answer_in_another_form_is_shown_and_not_tried_again(
    service: Service, cache: ResponseCache, body: bytes
) -> None:
    service.script = [say(200, body)]
    with pytest.raises(SearchError, match="does not answer as a retrieve endpoint does"):
        endpoint(service, cache).search("q", 1)
    assert len(service.requests) == 1


def test_a_question_is_asked_once_even_over_a_restart(service: Service, cache: ResponseCache, tmp_path: Path) -> None:
    endpoint(service, cache).search("q", 1)
    endpoint(service, cache).search("q", 1)
    restarted = ResponseCache(tmp_path / "responses.sqlite")
    assert endpoint(service, restarted).search("q", 1) == [VASK]
    assert len(service.requests) == 1


def test_an_endpoint_that_went_down_still_answers_what_it_has_answered(cache: ResponseCache) -> None:
    service = Service()
    endpoint(service, cache).search("q", 1)
    service.stop()
    assert endpoint(service, cache).search("q", 1) == [VASK]


def test_another_query_number_form_or_address_is_another_question(service: Service, cache: ResponseCache) -> None:
    endpoint(service, cache).search("q", 1)
    endpoint(service, cache).search("Q", 1)
    endpoint(service, cache).search("q", 2)
    SearchEndpoint(f"{service.url}/other", "retrieve", cache, QUICK).search("q", 1)
    service.script = [say(200, b'{"results": []}')]
    endpoint(service, cache, "searxng").search("q", 1)
    assert len(service.requests) == 5


def test_what_failed_is_not_kept(service: Service, cache: ResponseCache) -> None:
    service.script = [say(404)]
    with pytest.raises(SearchError):
        endpoint(service, cache).search("q", 1)
    service.script = [say(200, FOUND)]
    assert endpoint(service, cache).search("q", 1) == [VASK]


def test_thirty_two_threads_may_search_at_once(service: Service, cache: ResponseCache) -> None:
    searcher = endpoint(service, cache, patience=Patience(first_pause_s=0.01))
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda n: searcher.search(f"q{n % 100}", 1), range(200)))
    assert found == [[VASK]] * 200
    assert endpoint(service, cache).search("q99", 1) == [VASK]


def test_a_cache_that_is_no_cache_is_named(service: Service, tmp_path: Path) -> None:
    (tmp_path / "broken.sqlite").write_text("this is no database, and long enough to be looked at" * 10)
    with pytest.raises(SearchError, match=r"broken\.sqlite cannot be used"):
        endpoint(service, ResponseCache(tmp_path / "broken.sqlite")).search("q", 1)


def test_no_address_or_query_can_be_read_from_the_cache(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_endpoint(service.url, "retrieve").search("secret query", 1) == [VASK]
    path = tmp_path / "winnow" / "responses.sqlite"
    ((count,),) = sqlite3.connect(path).execute("SELECT count(*) FROM responses")
    assert count == 1
    assert b"secret" not in path.read_bytes()
    assert b"127.0.0.1" not in path.read_bytes()
