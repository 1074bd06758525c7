"""A JSON API over HTTP, asked again while its faults pass: no connection, a stall, a cut answer, 429, most of 5xx.

What cannot pass, such as a wrong key or a request that the server refuses, is asked once and is `Refused`.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import itertools
import json
import random
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import aiohttp

from tasks.engines.base import EngineError

T = TypeVar("T")

MAX_RESPONSE_BYTES = 32 << 20
MAX_SHOWN_CHARS = 300
CONNECT_S = 10.0
KEEP_IDLE_S = 4.0
"""Less than the 5 s after which uvicorn, and so vLLM, hangs up on an idle connection."""
WATCHERS = 2
"""Connections beside those for replies: who looks how a server fares must not wait until it has time."""
PASSING_STATUSES = {408, 409, 425, 429}
"""Those below 500 that may be gone at the next attempt; OpenAI's own client repeats 409 too."""
LASTING_STATUSES = {501, 505}
OVERLOADED_STATUSES = {429, 503, 529}
"""With which servers say that they are asked too much at a time; 529 is Anthropic's."""
LASTING_CODES = {"insufficient_quota"}
"""OpenAI says 429 also when the account is empty."""


class PassingFault(Exception):
    """An attempt failed in a way that may be gone at the next one."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        """The least pause that the server asks for."""


class Refused(EngineError):
    """The server does not want this request, and would not want it again."""

    def __init__(self, message: str, status: int, error: dict[str, Any], said: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        """What the server gives as `error`: its `code`, `type` and `param`, if it is so kind."""
        self.said = said


class OutOfTime(EngineError):
    """No attempt worked, and there is no time for more."""


@dataclass(frozen=True)
class Backoff:
    """The pause after the n-th attempt in a row is drawn from 0 to `first_s` times 2 ** (n - 1): full jitter."""

    first_s: float = 0.5
    longest_s: float = 20.0

    def pause_s(self, attempts: int) -> float:
        return random.uniform(0.0, min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 100)))


class Deadline:
    """When a request has to be answered."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self.start_anew()

    @property
    def left_s(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self._at - time.monotonic()

    def start_anew(self) -> None:
        """Give the whole time again."""
        self._at = time.monotonic() + self._within_s


class Gate:
    """Holds requests up while a server is down, and turns them away once it will not come back. It begins closed."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self._why: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests pass."""
        return self._moved.is_set() and self._why is None

    def open(self) -> None:
        """Let requests pass."""
        self._moved.set()

    def close(self) -> None:
        """Hold requests up."""
        self._moved.clear()

    def shut_for_good(self, why: str) -> None:
        """Turn away those that wait and those that come."""
        self._why = why
        self._moved.set()

    async def passed(self) -> None:
        """Wait until it is open.

        Raises:
            EngineError: it is shut for good.
        """
        await self._moved.wait()
        if self._why is not None:
            raise EngineError(self._why)


class HttpEndpoint:
    """The server at `url`, between `open` and `close`. `key` goes into each request's header and nowhere else."""

    def __init__(
        self,
        url: str,
        key: str | None,
        max_connections: int,
        backoff: Backoff,
        on_overload: Callable[[], None] | None = None,
    ) -> None:
        """`on_overload`: is called when the server says that it is asked too much."""
        self.url = url.rstrip("/")
        self._key = key
        self._max_connections = max_connections
        self._backoff = backoff
        self._on_overload = on_overload
        self._proxy = _proxy_for(self.url)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool of connections; nothing is sent yet."""
        headers = {"Content-Type": "application/json", "User-Agent": "winnow"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEP_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),  # the rest is up to `ask`
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Hang up. Safe to call twice, and before `open`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        body: object = None,
        *,
        deadline: Deadline,
        attempt_s: float,
        max_attempts: int | None = None,
        decode: Callable[[bytes], Any] = json.loads,
        gate: Gate | None = None,
        held_up: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> T:
        """What `read` makes of the JSON that is answered; it may raise PassingFault if that is no good.

        Args:
            decode: for what is answered in another form than JSON.
            gate: what each attempt has to pass. Behind it the request starts anew.
            held_up: is entered while that is waited for.
            deadline: nothing goes on beyond it, however slowly bytes come in.
            attempt_s: most seconds for one attempt, until its whole answer is there.

        Raises:
            Refused: the server does not want the request.
            OutOfTime: no attempt worked until the deadline, or the server asks for a pause that would go beyond it.
            EngineError: there is no connection to be had at all, or the gate is shut for good.
        """
        data = None if body is None else json.dumps(body).encode()
        last: PassingFault | None = None
        for attempts in itertools.count(1):
            if gate is not None and not gate.is_open:
                with held_up():
                    await gate.passed()
                deadline.start_anew()
            left_s = deadline.left_s
            try:
                async with asyncio.timeout(min(attempt_s, left_s)):
                    return read(await self._fetch(method, path, data, decode))
            except TimeoutError:
                if last is None or attempt_s <= left_s:  # else the fault before tells more than the deadline
                    last = PassingFault(f"no whole answer within {min(attempt_s, left_s):.3g} s")
            except PassingFault as fault:
                last = fault
            pause_s = last.pause_s + self._backoff.pause_s(attempts)
            if attempts == max_attempts or pause_s >= deadline.left_s:
                self._give_up(path, attempts, last)
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def _fetch(self, method: str, path: str, data: bytes | None, decode: Callable[[bytes], Any]) -> Any:
        """One attempt. Errors are raised `from None`: some of the client's carry the request with its key."""
        if self._session is None:
            raise EngineError("the engine is not running: it has not been started, or has been stopped")
        try:
            # A redirect would turn a POST into a GET, and carry the key elsewhere.
            async with self._session.request(
                method, self.url + path, data=data, allow_redirects=False, proxy=self._proxy
            ) as response:
                body = await _read_body(response)
        except aiohttp.ClientConnectorCertificateError as error:
            raise EngineError(f"{self.url}: {self._shown(str(error))}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PassingFault(self._shown(f"{type(error).__name__}: {error}")) from None
        if not 200 <= response.status < 300:
            self._judge(path, response, body)
        try:
            return decode(body)
        except (ValueError, RecursionError):
            start = self._shown(body.decode("utf-8", "replace"))
            raise PassingFault(f"an answer that is not whole JSON: {start or 'nothing at all'}") from None

    def _judge(self, path: str, response: aiohttp.ClientResponse, body: bytes) -> NoReturn:
        """Raise what a status other than success means."""
        status = response.status
        if status in OVERLOADED_STATUSES and self._on_overload is not None:
            self._on_overload()
        error, said = _error_of(body)
        said = self._shown(said)
        message = f"{status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        lasts = status in LASTING_STATUSES or str(error.get("code")) in LASTING_CODES
        if (status >= 500 or status in PASSING_STATUSES) and not lasts:
            raise PassingFault(message, seconds_of(response.headers.get("Retry-After")))
        if 300 <= status < 400:
            message += f" (redirects to {self._shown(response.headers.get('Location', 'nowhere'))}; not followed)"
        raise Refused(f"{self.url}{path} answers {message}", status, error, said)

    def _give_up(self, path: str, attempts: int, last: PassingFault) -> NoReturn:
        counted = "1 attempt" if attempts == 1 else f"{attempts} attempts, the last one"
        wish = f"; it asks to be left alone for {last.pause_s:.0f} s" if last.pause_s else ""
        what = self._shown(str(last))
        raise OutOfTime(f"{self.url}{path} gave no usable answer ({counted}: {what}{wish})") from None

    def _shown(self, text: str) -> str:
        """Text from outside, fit to be shown: short, on one line, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:MAX_SHOWN_CHARS]


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            response.close()
            raise PassingFault(f"an answer of more than {MAX_RESPONSE_BYTES >> 20} MiB")
    return bytes(body)


def _error_of(body: bytes) -> tuple[dict[str, Any], str]:
    """The error object in a body, empty if there is none, and the server's words."""
    answer: Any = None
    with suppress(ValueError, RecursionError):
        answer = json.loads(body)
    return error_object(answer), error_message(answer) or body.decode("utf-8", "replace")


def error_object(answer: Any) -> dict[str, Any]:
    """The error that an answer holds: under `error`, as OpenAI has it, or in its place, as older vLLM has it."""
    found = answer.get("error", answer) if isinstance(answer, dict) else None
    return found if isinstance(found, dict) else {}


def error_message(answer: Any) -> str:
    """The words of an error, wherever a server of this kind keeps them; empty if there are none."""
    error = error_object(answer)
    words = error.get("message") or error.get("detail") or (answer.get("error") if isinstance(answer, dict) else "")
    return words if isinstance(words, str) else json.dumps(words) if words else ""


def seconds_of(retry_after: str | None) -> float:
    """Seconds to wait, from a `Retry-After` header: a number or a date. 0 for none and for nonsense."""
    text = (retry_after or "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address, found once: aiohttp would look it up at each request."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    if host == "localhost" or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)
