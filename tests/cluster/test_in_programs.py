"""A launch within a program leaves the program as it was.   pytest tests/cluster/test_in_programs.py"""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import pytest

from hpcdata.base import logs, signals
from hpcdata.cluster.launching import Launched, launch
from hpcdata.report.status import read_status
from tests.smallruns import small_config


@pytest.mark.parametrize("cluster", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_it_works_in_a_thread_and_leaves_logging_and_signals_alone(tmp_path: Path, cluster: str) -> None:
    root, before = logging.getLogger(), [signal.getsignal(number) for number in (*signals.STOP_SIGNALS, signal.SIGALRM)]
    handler, level = logging.NullHandler(), root.level
    root.addHandler(handler)
    config = small_config(tmp_path / "run", f"cluster={cluster}", "cluster.array=0-1", "finish.combine=true")
    handlers, launched, during = list(root.handlers), list[Launched](), list[object]()

    def work() -> None:
        launched.append(launch(config))
        during.append([signal.getsignal(number) for number in (*signals.STOP_SIGNALS, signal.SIGALRM)])

    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert (root.handlers, root.level) == (handlers, level)
    finally:
        root.removeHandler(handler)
    assert during == [before]
    assert [item.exit_code for item in launched] == [0]
    assert read_status(tmp_path / "run").combined


def test_an_entry_point_that_has_set_up_logging_may_be_renamed(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.rename("one")
        assert root.handlers == handlers
        logs.configure("two")
        logs.rename("three")
        logging.getLogger("hpcdata").warning("seen")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "[three] seen" in capfd.readouterr().err


def test_a_stop_flag_in_a_thread_is_never_set(tmp_path: Path) -> None:
    found = []

    def look() -> None:
        with signals.StopFlag() as stop:
            found.append(stop.received)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [None]
