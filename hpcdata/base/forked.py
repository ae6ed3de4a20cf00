"""A computation over many small files, shared out to forked processes."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
MAX_PROCESSES = 4


def share_out(function: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item]) -> list[_Result]:
    """What the function makes of each share of the items: one is computed here, the others in children.

    A share whose child fails is computed here; so is everything where there are threads, which a fork would cut off.
    """
    number = min(MAX_PROCESSES, len(os.sched_getaffinity(0))) if threading.active_count() == 1 else 1
    shares = [items[start::number] for start in range(number)]
    children = [_start(function, share) for share in shares[1:]]
    answers: list[bytes | None] = []
    try:
        results = [function(shares[0])]
    finally:
        answers += [_answer(*child) for child in children]
    for share, answer in zip(shares[1:], answers, strict=True):
        results.append(function(share) if answer is None else pickle.loads(answer))
    return results


def _start(function: Callable[[Sequence[_Item]], object], share: Sequence[_Item]) -> tuple[int, int]:
    """(process, the end of the pipe that its answer comes from)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        with open(writing, "wb") as pipe:
            pipe.write(pickle.dumps(function(share), pickle.HIGHEST_PROTOCOL))
        status = 0
    finally:  # nothing of the parent is run again, whatever went wrong
        os._exit(status)


def _answer(child: int, descriptor: int) -> bytes | None:
    with open(descriptor, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return None if status else answer
