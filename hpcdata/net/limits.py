"""How often a host is asked, and how long it is left alone when it says so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from email.utils import parsedate_to_datetime

_MOST_HOSTS = 10_000


class _Host:
    def __init__(self) -> None:
        self.num_asking = self.num_waiting = 0
        self.next = 0.0
        """When the next request may begin."""
        self.paused_until = 0.0


class HostLimits:
    """For any number of threads of one process: requests a second, and at once, of each host. None: any number."""

    def __init__(self, *, per_second: float | None = None, at_once: int | None = None) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._at_once = at_once
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Waits until the host may be asked."""
        with self._changed:
            found = self._hosts.setdefault(host, _Host())
            found.num_waiting += 1
            while self._at_once is not None and found.num_asking >= self._at_once:
                self._changed.wait()
            found.num_waiting -= 1
            found.num_asking += 1
            begin = max(found.next, time.monotonic())
            found.next = begin + self._gap
        try:
            while (left := max(begin, found.paused_until) - time.monotonic()) > 0:
                time.sleep(left)
            yield
        finally:
            with self._changed:
                found.num_asking -= 1
                if found.num_waiting:
                    self._changed.notify_all()
                elif len(self._hosts) > _MOST_HOSTS:
                    self._forget()

    def pause(self, host: str, seconds: float) -> None:
        """Nobody begins to ask the host before so many seconds are over."""
        with self._changed:
            found = self._hosts.setdefault(host, _Host())
            found.paused_until = max(found.paused_until, time.monotonic() + seconds)
            found.next = max(found.next, found.paused_until)

    def _forget(self) -> None:
        now = time.monotonic()
        for name, host in [*self._hosts.items()]:
            if not host.num_asking and not host.num_waiting and host.next < now:
                del self._hosts[name]


def retry_after(headers: Mapping[str, str] | Message, *, most_s: float) -> float | None:
    """Seconds that a host wants to be left alone, at most `most_s`; None where it does not say."""
    text = (headers.get("retry-after") or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), most_s)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(seconds, 0.0), most_s)
