"""python -m pytest tests/net/test_loop.py"""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpcdata.net.loop import Turn, drive
from tests.net.loops import ran


def test_coroutines_wait_for_times_and_each_other(loop):
    order, turn, began = [], Turn(loop), Turn(loop)

    async def waits():
        await turn
        order.append("woken")

    async def wakes():
        began.wake()
        await loop.sleep(0.02)
        order.append("slept")
        turn.wake()
        await turn  # which is set by now

    async def sleeps():
        await began
        await loop.sleep(0.1)
        order.append("last")

    ran(loop, sleeps(), waits(), wakes())
    assert order == ["slept", "woken", "last"]


def test_threads_work_for_them_and_what_they_raise_is_raised(loop):
    async def asks(function, threads):
        return await loop.in_thread(function, threads)

    with ThreadPoolExecutor(2) as threads:
        assert ran(loop, asks(lambda: 7, threads), asks(lambda: 8, threads)) == [7, 8]
        with pytest.raises(ZeroDivisionError):
            ran(loop, asks(lambda: 1 / 0, threads))
    with pytest.raises(RuntimeError, match="shutdown"):
        ran(loop, asks(lambda: 9, threads))


def test_a_kept_socket_that_its_host_closes_keeps_nobody_busy(loop):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def reads():
        theirs.send(b"x")
        await loop.readable(ours, until=time.monotonic() + 20)
        return ours.recv(1)

    assert ran(loop, reads()) == [b"x"]
    theirs.close()

    async def rests():
        before = time.thread_time()
        await loop.sleep(0.2)
        return time.thread_time() - before

    (used_s,) = ran(loop, rests())
    assert used_s < 0.1

    async def looks():
        await loop.readable(ours, until=time.monotonic() + 20)
        return ours.recv(1)

    assert ran(loop, looks()) == [b""]


def test_what_waits_is_not_driven_without_a_loop(loop):
    async def waits():
        await loop.sleep(1)

    with pytest.raises(RuntimeError, match="waits"):
        drive(waits())


def test_who_fails_to_take_a_result_stops_nobody_else(loop, caplog):
    async def ends():
        return 7

    def fails(value, error):
        raise ValueError("no room for it")

    loop.start(ends(), fails)
    assert ran(loop, ends()) == [7]
    assert "no room for it" in caplog.text


def test_a_loop_that_is_closed_holds_no_descriptors_and_bears_late_threads(loop):
    before, go_on = set(os.listdir("/proc/self/fd")), threading.Event()

    async def waits(threads):
        await loop.in_thread(go_on.wait, threads)

    with ThreadPoolExecutor(1) as threads:
        loop.start(waits(threads), lambda value, error: None)
        loop.close()
        assert set(os.listdir("/proc/self/fd")) <= before
        go_on.set()
