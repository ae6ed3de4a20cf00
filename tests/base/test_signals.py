"""The flag that a signal sets.   pytest tests/base/test_signals.py"""

from __future__ import annotations

import os
import signal

import pytest

from hpcdata.base.signals import StopFlag


def test_ctrl_c_is_answered_at_once_and_other_signals_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
    assert capfd.readouterr().err == "hpcdata: stops after a checkpoint, in a few seconds\n"
    with StopFlag():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == ""
