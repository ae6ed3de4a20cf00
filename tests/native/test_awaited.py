"""Results that are waited for.   python -m pytest tests/native/test_awaited.py"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hpcdata.native.awaited import AllAwaited, Awaited


def waiting(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def is_over(thread: threading.Thread, within_s: float = 0.05) -> bool:
    thread.join(within_s)
    return not thread.is_alive()


def test_whoever_waits_goes_on_with_the_last_result_or_the_first_error() -> None:
    every = AllAwaited()
    first, second, third = items = [Awaited[int](every) for _ in range(3)]
    first.set(1)
    thread = waiting(lambda: every.wait(items))
    third.set(3)
    assert not is_over(thread)
    second.set(2)
    assert is_over(thread, 5)
    assert [item.result() for item in items] == [1, 2, 3]

    slow, failed, _ = items = [Awaited[int](every) for _ in range(3)]
    thread = waiting(lambda: every.wait(items))
    failed.set(None, OSError("lost"))
    assert is_over(thread, 5)
    every.wait(items)  # nor is an error waited for again
    thread = waiting(slow.result)
    assert not is_over(thread)
    slow.set(4)
    assert is_over(thread, 5)
    with pytest.raises(OSError, match="lost"):
        failed.result()
