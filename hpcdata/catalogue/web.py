"""Asking servers for files: the hub's token, the pauses that hosts ask for, and what goes wrong as a `Fault`.

An address is asked once by `open`; connections, redirects, proxies and certificates are `hpcdata.net`'s. A token goes
to the hub's own origin alone. All threads keep the pauses that a host asks for.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hpcdata import __version__
from hpcdata.catalogue.faults import Fault, fault_of_status
from hpcdata.catalogue.settings import OFFLINE, Hub
from hpcdata.net import Answer as NetAnswer
from hpcdata.net import Client, Cut, Refused, Settings, Unreachable, retry_after
from hpcdata.net.addresses import shown
from hpcdata.net.loop import Loop, drive

log = logging.getLogger(__name__)

AGENT = f"hpcdata/{__version__} (downloads data sets)"
_BLOCK = 1 << 18
_FOREVER_S = 30 * 86400.0
_LONG_S, _TOLD_EVERY_S = 4.0, 60.0
_SUCCESSES = (200, 206, 416)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_RESET = re.compile(r"\bt=(\d+)")


@dataclass(frozen=True)
class Answer:
    """A success, or a range that the file does not have (416). begin: which byte of the file its body begins with.
    end: behind its last one, where it is said.
    """

    status: int
    begin: int
    end: int | None
    total: int | None
    """Bytes of the whole file, as the server says."""
    validator: str | None
    """A strong ETag, or the time of the last change: what a later request must find again."""
    content_type: str
    headers: Mapping[str, str]
    read_into: Callable[[memoryview], Coroutine[Any, Any, int]]
    """Puts some bytes of the body there, and says how many; 0 at its end. Raises Fault for a body that is cut."""

    @property
    def is_range(self) -> bool:
        return self.status == 206


class Web:
    """Thread-safe. A context manager: leaving it closes all connections.

    wait: sleeps, and returns True when the process is to stop.
    """

    def __init__(
        self, hub: Hub, *, wait: Callable[[float], bool], timeout_s: float = 30.0, max_wait_s: float = 300.0
    ) -> None:
        """timeout_s: without a byte. max_wait_s: the longest pause that a server can ask for."""
        self.wait = wait
        self._hub = hub
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._pauses: dict[str, float] = defaultdict(float)
        """Host -> when it may be asked again, by the monotonic clock."""
        self._told: dict[str, float] = {}
        # The addresses are those of the catalogue and of the hub, which may be a mirror at this site.
        settings = Settings(agent=AGENT, connect_s=timeout_s, read_s=timeout_s, allows_private=True)
        self.loop = Loop("fetching")
        self._client, self._client_of_loop = Client(settings), Client(settings, self.loop)

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()
        self._client_of_loop.close()
        self._client.close()

    def wait_after(self, fault: Fault, tries: int, left_s: float, wait: Callable[[float], bool]) -> None:
        """Before a busy server is asked again; says why where that is long. left_s: until it is given up. Raises Fault
        when the process is to stop.
        """
        seconds = fault.retry_after_s if fault.retry_after_s is not None else min(0.25 * 2**tries, 30.0)
        if seconds >= _LONG_S:
            self._tell(fault, left_s)
        if wait(min(seconds, max(0.0, left_s))):
            raise Fault("busy", "stopped", "the process is to stop") from None

    def _tell(self, fault: Fault, left_s: float) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(fault.reason, -_TOLD_EVERY_S) < _TOLD_EVERY_S:
                return
            self._told[fault.reason] = now
        log.warning("%s: %s; asked again, and given up in %.0f s (--patience)", fault.reason, fault.detail, left_s)

    def read(self, url: str, most: int) -> tuple[bytes, Answer]:
        """A whole body. Raises Fault, also for one of more than `most` bytes."""
        return drive(self._read(url, most))

    async def _read(self, url: str, most: int) -> tuple[bytes, Answer]:
        async with self.open(url) as answer:
            data, buffer = bytearray(), memoryview(bytearray(_BLOCK))
            while count := await answer.read_into(buffer):
                data += buffer[:count]
                if len(data) > most:
                    raise Fault("wrong", "size", f"{shown(url)}: more than {most} bytes")
            return bytes(data), answer

    @contextlib.asynccontextmanager
    async def open(
        self, url: str, *, offset: int = 0, end: int | None = None, validator: str | None = None, in_loop: bool = False
    ) -> AsyncIterator[Answer]:
        """Asks for the bytes [offset, end) of a file, if it is still the one of `validator`. Raises Fault.

        end: None for all that follow. A server may answer with more than was asked for. in_loop: whoever asks is a
        coroutine of `loop`; else it is driven, and blocks.
        """
        if self._hub.is_offline:
            raise Fault("refused", "offline", f"{shown(url)} is not asked: {OFFLINE[0]} or {OFFLINE[1]} is set")
        headers = {}
        if offset or end is not None:
            headers["Range"] = f"bytes={offset}-{'' if end is None else end - 1}"
            if validator:
                headers["If-Range"] = validator
        if self._hub.token and _origin(url) == _origin(self._hub.endpoint):
            headers["Authorization"] = f"Bearer {self._hub.token}"
        await self._keep_pause(url, in_loop)
        client = self._client_of_loop if in_loop else self._client
        try:
            answer = await client.ask(url, headers=headers, until=time.monotonic() + _FOREVER_S)
        except Unreachable as error:
            raise Fault("busy", "unreachable", f"{shown(url)}: {error}") from None
        except Refused as error:
            raise Fault("refused", "address", f"{shown(url)}: {error}") from None
        with answer:
            await self._require_success(answer, url)
            yield _told(answer, offset, url)

    async def _require_success(self, answer: NetAnswer, url: str) -> None:
        if answer.status in _SUCCESSES:
            return
        with contextlib.suppress(Cut):
            await answer.body(_BLOCK)  # so that the connection is kept
        seconds = retry_after(answer.headers, most_s=self._max_wait_s)
        if seconds is None and (found := _RESET.search(answer.headers.get("ratelimit", ""))):
            seconds = min(float(found[1]), self._max_wait_s)
        fault = fault_of_status(answer.status, shown(answer.url), retry_after_s=seconds)
        if _origin(answer.url) != _origin(url) and fault.kind in ("refused", "gone"):
            fault.kind = "busy"  # a link that has run out: its origin gives another one
        if seconds is not None:
            with self._lock:
                host = urlsplit(url).netloc
                self._pauses[host] = max(self._pauses[host], time.monotonic() + seconds)
        raise fault

    async def _keep_pause(self, url: str, in_loop: bool) -> None:
        while self._pauses:
            with self._lock:
                seconds = self._pauses.get(urlsplit(url).netloc, 0.0) - time.monotonic()
            if seconds <= 0:
                return
            if in_loop:
                await self.loop.sleep(min(seconds, 1.0))
            if self.wait(0 if in_loop else min(seconds, 1.0)):
                raise Fault("busy", "stopped", "the process is to stop")


def _told(answer: NetAnswer, offset: int, url: str) -> Answer:
    """Raises Fault for a body that is packed, though nobody asked for it."""
    headers = answer.headers
    begin, end, total = 0, None, answer.size
    if answer.status == 206:
        found = _RANGE.fullmatch(headers.get("content-range", "").strip())
        begin, end = (int(found[1]), int(found[2]) + 1) if found else (-1, None)
        total = int(found[3]) if found and found[3] != "*" else None
    elif answer.status == 416:
        size = headers.get("content-range", "").rpartition("/")[2].strip()
        begin, total = offset, int(size) if size.isdecimal() else None
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Fault("wrong", "encoding", f"{shown(url)} answers in {coding}, which was not asked for")
    return Answer(
        status=answer.status,
        begin=begin,
        end=end,
        total=total,
        validator=_validator(headers),
        content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
        headers=headers,
        read_into=_reading(None if answer.status == 416 else answer, url),
    )


def _reading(answer: NetAnswer | None, url: str) -> Callable[[memoryview], Coroutine[Any, Any, int]]:
    async def read_into(buffer: memoryview) -> int:
        try:
            return 0 if answer is None else await answer.body_into(buffer)
        except Cut as error:
            raise Fault("busy", "cut", f"{shown(url)}: {error}") from None

    return read_into


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = (headers.get("etag") or "").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified") or None
