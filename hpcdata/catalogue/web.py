"""Asking servers for bytes, over the HTTP client that comes with huggingface_hub: redirects, tokens, hosts, faults.

An address is asked once by `open`, and what goes wrong is a `Fault`. Redirects are followed here, so that a token goes
to the hub's own origin alone, and that a link which has run out is asked for again at its origin. All threads share the
pauses that a host asks for, and the number of its connections. Proxies and certificates are those of the environment.
"""

from __future__ import annotations

import contextlib
import email.utils
import importlib.util
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from hpcdata import __version__
from hpcdata.base.errors import UserError
from hpcdata.catalogue.faults import Fault, fault_of_status
from hpcdata.catalogue.settings import Hub

AGENT = f"hpcdata/{__version__} (downloads data sets)"
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_RESET = re.compile(r"\bt=(\d+)")


@dataclass(frozen=True)
class Answer:
    """A success. begin: which byte of the file its body begins with."""

    begin: int
    total: int | None
    """Bytes of the whole file, as the server says."""
    validator: str | None
    """A strong ETag, or the time of the last change: what a later request must find again."""
    content_type: str
    headers: Any
    chunks: Iterator[bytes]


class Web:
    """Thread-safe. A context manager: leaving it closes all connections.

    wait: sleeps, and returns True when the process is to stop.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        wait: Callable[[float], bool],
        timeout_s: float = 30.0,
        max_wait_s: float = 300.0,
        per_host: int = 16,
        per_host_rate: float | None = None,
        agent: str = AGENT,
    ) -> None:
        """timeout_s: without a byte. max_wait_s: the longest pause that a server can ask for. per_host: connections to
        one host; per_host_rate: requests a second to one host, None for no limit. agent: how we name ourselves.
        """
        self._http = _library()
        self._hub = hub
        self.wait = wait
        self._max_wait_s = max_wait_s
        self._interval_s = 1 / per_host_rate if per_host_rate else 0.0
        self._agent = agent
        self._lock = threading.Lock()
        self._pauses: dict[str, float] = defaultdict(float)
        """Host -> when it may be asked again, by the monotonic clock."""
        self._gates: dict[str, threading.BoundedSemaphore] = defaultdict(lambda: threading.BoundedSemaphore(per_host))
        limits = self._http.Limits(max_connections=None, max_keepalive_connections=4 * per_host)
        self._client = self._http.Client(timeout=timeout_s, limits=limits, follow_redirects=False)

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextlib.contextmanager
    def open(
        self, url: str, *, offset: int = 0, validator: str | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[Answer]:
        """Asks for a file from byte `offset` on, if it is still the one of `validator`. Raises Fault."""
        asked = {"User-Agent": self._agent, "Accept-Encoding": "identity", **(headers or {})}
        if offset:
            asked["Range"] = f"bytes={offset}-"
            if validator:
                asked["If-Range"] = validator
        with contextlib.ExitStack() as stack:
            with self._told_as_faults(url):
                response = self._follow(url, asked, stack)
            yield self._answer(response, offset)

    @contextlib.contextmanager
    def _told_as_faults(self, url: str) -> Iterator[None]:
        try:
            yield
        except self._http.TimeoutException as error:
            raise Fault("busy", "timeout", f"{_named(url)}: {type(error).__name__}") from None
        except (self._http.TransportError, self._http.StreamError) as error:
            raise Fault("busy", "connection", f"{_named(url)}: {_told(error)}") from None
        except (self._http.InvalidURL, UnicodeError) as error:
            raise Fault("refused", "address", f"{_named(url)}: {_told(error)}") from None

    def _chunks(self, response: Any) -> Iterator[bytes]:
        with self._told_as_faults(str(response.url)):
            if response.status_code != 416:
                yield from response.iter_raw()

    def pause(self, url: str, seconds: float) -> None:
        """Nobody of this process asks the host of this address before so many seconds have gone by."""
        host = urlsplit(url).netloc
        with self._lock:
            self._pauses[host] = max(self._pauses[host], time.monotonic() + min(seconds, self._max_wait_s))

    def _follow(self, url: str, asked: dict[str, str], stack: contextlib.ExitStack) -> Any:
        first = url
        for _ in range(_MOST_REDIRECTS):
            own = contextlib.ExitStack()
            try:
                response = self._ask(url, asked, own)
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    break
                target = urljoin(url, response.headers["location"])
            except BaseException:
                own.close()
                raise
            own.close()
            if urlsplit(target).scheme not in ("http", "https"):
                raise Fault("refused", "redirect", f"{_named(url)} leads to {_named(target)}")
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise Fault("refused", "redirect", f"{_named(url)} leads from https to {_named(target)}")
            url = target
        else:
            raise Fault("refused", "redirect", f"{_named(first)} leads on and on")
        stack.push(own)
        if response.status_code in (200, 206, 416):
            return response
        seconds = _retry_after(response.headers)
        fault = fault_of_status(response.status_code, _named(url), retry_after_s=seconds)
        if url != first and fault.kind in ("refused", "gone"):  # a link that has run out: its origin gives another one
            fault.kind = "busy"
        if seconds is not None:
            self.pause(url, seconds)
        raise fault

    def _ask(self, url: str, asked: dict[str, str], stack: contextlib.ExitStack) -> Any:
        host = urlsplit(url).netloc
        with self._lock:
            gate = self._gates[host]
        stack.enter_context(gate)
        self._keep_pause(host)
        sent = dict(asked)
        if self._hub.token and _origin(url) == _origin(self._hub.endpoint):
            sent["Authorization"] = f"Bearer {self._hub.token}"
        response = self._client.send(self._client.build_request("GET", url, headers=sent), stream=True)
        stack.callback(response.close)
        return response

    def _keep_pause(self, host: str) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                seconds = self._pauses[host] - now
                if seconds <= 0:
                    if self._interval_s:
                        self._pauses[host] = now + self._interval_s
                    return
            if self.wait(min(seconds, 1.0)):
                raise Fault("busy", "stopped", "the process is to stop")

    def _answer(self, response: Any, offset: int) -> Answer:
        headers = response.headers
        begin, total = 0, _number(headers.get("content-length"))
        if response.status_code == 206:
            found = _RANGE.fullmatch(headers.get("content-range", "").strip())
            begin = int(found[1]) if found else -1
            total = int(found[3]) if found and found[3] != "*" else None
        elif response.status_code == 416:
            begin, total = offset, _number(headers.get("content-range", "").rpartition("/")[2])
        if (coding := headers.get("content-encoding", "identity")) not in ("", "identity"):
            raise Fault(
                "wrong", "encoding", f"{_named(str(response.url))} answers in {coding}, which was not asked for"
            )
        return Answer(
            begin=begin,
            total=total,
            validator=_validator(headers),
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            headers=headers,
            chunks=self._chunks(response),
        )


def _library() -> Any:
    """By the name that it has in the huggingface_hub that is there."""
    for name in ("httpx2", "httpx"):
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    raise UserError("huggingface_hub 1.0 or later is needed, for its HTTP client: pip install -U huggingface_hub")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _named(url: str) -> str:
    """An address without name, password and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _validator(headers: Any) -> str | None:
    etag = headers.get("etag", "").strip()
    if etag and not etag.startswith("W/"):
        return str(etag)
    return headers.get("last-modified") or None


def _retry_after(headers: Any) -> float | None:
    """Seconds: of Retry-After, a number or a date, or of the draft's `RateLimit: "api";r=0;t=55`."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    if text:
        with contextlib.suppress(ValueError, TypeError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    found = _RESET.search(headers.get("ratelimit", ""))
    return float(found[1]) if found else None
