"""Hosts that are not asked for a while: they said so, or could not be reached again and again."""

from __future__ import annotations

import time
from typing import TypeVar

from hpcdata.samples import BadSample, Reason

T = TypeVar("T")
_DOWN_AFTER, _DOWN_S = 9, 60.0
"""A host that could not be reached so often in a row is not asked for so long."""
_MOST_HOSTS = 50_000
"""Of either kind: the latest are remembered."""


class Hosts:
    """For the coroutines of one loop."""

    def __init__(self) -> None:
        self._closed: dict[str, tuple[float, str]] = {}
        self._failures: dict[str, int] = {}

    def require_open(self, host: str) -> None:
        """Raises BadSample."""
        until, why = self._closed.get(host, (0.0, ""))
        if until and until <= time.monotonic():
            del self._closed[host]
        elif until:
            raise BadSample(Reason.URL_FAILED, why)

    def close(self, host: str, seconds: float, why: str) -> None:
        _remember(self._closed, host, (time.monotonic() + seconds, why))

    def reached(self, host: str) -> None:
        self._failures.pop(host, None)

    def failed(self, host: str) -> None:
        _remember(self._failures, host, self._failures.get(host, 0) + 1)

    def close_if_down(self, host: str, why: str) -> None:
        if self._failures.get(host, 0) >= _DOWN_AFTER:
            self.close(host, _DOWN_S, why)


def _remember(known: dict[str, T], host: str, value: T) -> None:
    known.pop(host, None)
    known[host] = value
    if len(known) > _MOST_HOSTS:
        del known[next(iter(known))]
