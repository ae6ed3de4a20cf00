"""Shares of a computation in forked processes.   pytest tests/base/test_forked.py"""

from __future__ import annotations

import os
import signal
import threading

import pytest

from hpcdata.base import forked


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Three cores; returns the processes that were forked."""
    children, fork = list[int](), os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    return children


def are_gone(children: list[int]) -> bool:
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
    return len(children) == 2


def where(items: list[int]) -> tuple[int, int]:
    return sum(items), os.getpid()


def test_each_item_is_in_one_share_and_each_share_in_a_process() -> None:
    results = forked.share_out(where, list(range(100)))
    assert sum(total for total, _ in results) == sum(range(100))
    assert len({process for _, process in results}) == 3
    assert results[0][1] == os.getpid()


@pytest.mark.parametrize("how", ["raises", "dies", "says what cannot be pickled"])
def test_a_share_whose_child_fails_is_computed_here(how: str, children: list[int]) -> None:
    parent = os.getpid()

    def fail_in_children(items: list[int]) -> object:
        if os.getpid() != parent:
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "raises":
                raise ValueError(how)
            return lambda: items
        return sum(items)

    assert sum(forked.share_out(fail_in_children, list(range(100)))) == sum(range(100))  # type: ignore[arg-type]
    assert are_gone(children)


def test_an_error_here_is_an_error_and_leaves_no_child(children: list[int]) -> None:
    parent = os.getpid()

    def fail(items: list[int]) -> int:
        if os.getpid() == parent:
            raise ValueError("here")
        return sum(items)

    with pytest.raises(ValueError, match="here"):
        forked.share_out(fail, list(range(100)))
    assert are_gone(children)


def test_where_there_are_threads_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert forked.share_out(where, [1, 2, 3]) == [(6, os.getpid())]
