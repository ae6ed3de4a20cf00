"""Coroutines of a loop, run to their ends, for tests."""

from __future__ import annotations

import queue
from collections.abc import Coroutine
from typing import Any

from hpcdata.net.loop import Loop


def ran(loop: Loop, *coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """What they return, in order. Raises what the first of them raises, or queue.Empty after 20 s."""
    ends: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
    for number, coroutine in enumerate(coroutines):
        loop.start(coroutine, lambda value, error, number=number: ends.put((number, value, error)))
    found = sorted((ends.get(timeout=20) for _ in coroutines), key=lambda end: end[0])
    if error := next((error for _, _, error in found if error is not None), None):
        raise error
    return [value for _, value, _ in found]
