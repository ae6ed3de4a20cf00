"""How often a host is asked, and how long it is left alone when it says so."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from hpcdata.net.loop import Loop, Turn

_MOST_HOSTS = 10_000


class _Host:
    def __init__(self) -> None:
        self.num_asking = 0
        self.waiting: collections.deque[Turn] = collections.deque()
        self.next = 0.0
        """When the next request may begin."""
        self.paused_until = 0.0


class HostLimits:
    """For the coroutines of a loop: requests a second, and at once, of each host. None: any number."""

    def __init__(self, loop: Loop, *, per_second: float | None = None, at_once: int | None = None) -> None:
        self._loop = loop
        self._gap = 1 / per_second if per_second else 0.0
        self._at_once = at_once
        self._hosts: dict[str, _Host] = {}

    async def begin(self, host: str) -> None:
        """Waits until the host may be asked. `end` has to follow."""
        found = self._hosts.get(host)
        if found is None:
            found = self._hosts[host] = _Host()
        if self._at_once is not None and found.num_asking >= self._at_once:
            turn = Turn(self._loop)
            found.waiting.append(turn)
            await turn  # whoever ends hands on his place
        else:
            found.num_asking += 1
        now = time.monotonic()
        begin = max(found.next, now)
        found.next = begin + self._gap
        while (left := max(begin, found.paused_until) - now) > 0:
            await self._loop.sleep(left)
            now = time.monotonic()

    def end(self, host: str) -> None:
        found = self._hosts[host]
        if found.waiting:
            found.waiting.popleft().wake()
            return
        found.num_asking -= 1
        if len(self._hosts) > _MOST_HOSTS:
            self._forget()

    def pause(self, host: str, seconds: float) -> None:
        """Nobody begins to ask the host before so many seconds are over."""
        found = self._hosts.setdefault(host, _Host())
        found.paused_until = max(found.paused_until, time.monotonic() + seconds)
        found.next = max(found.next, found.paused_until)

    def _forget(self) -> None:
        now = time.monotonic()
        for name, host in [*self._hosts.items()]:
            if not host.num_asking and host.next < now:
                del self._hosts[name]


def retry_after(headers: Mapping[str, str], *, most_s: float) -> float | None:
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
