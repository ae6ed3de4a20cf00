"""python -m pytest tests/slurm/test_signals.py"""

import contextlib
import os
import signal
import threading
import time

import pytest

from hpcdata.base.signals import STOP_SIGNALS, StopFlag


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_sets_the_flag(number: signal.Signals) -> None:
    with StopFlag() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received is number


def test_the_first_signal_counts() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGUSR2


def test_sigcont_is_harmless() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGCONT)
        assert not stop.wait(0.05)


def test_a_second_ctrl_c_interrupts() -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_former_handlers_come_back() -> None:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with contextlib.suppress(RuntimeError), StopFlag() as stop:
        stop.install()  # twice must not take our own handler for the former one
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        raise RuntimeError
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


def test_wait_ends_early_when_a_signal_comes() -> None:
    with StopFlag() as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        started = time.monotonic()
        assert stop.wait(30)
        assert time.monotonic() - started < 10
        assert stop.wait(30)  # and at once when it has come already
        assert time.monotonic() - started < 10


def test_wait_lasts_as_long_as_asked() -> None:
    started = time.monotonic()
    assert not StopFlag().wait(0.25)
    assert time.monotonic() - started >= 0.25
