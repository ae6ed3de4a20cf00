"""Processes that stop themselves at a certain moment, so that no test has to be fast enough to catch them there.

process = start_stopping(["-m", "hpcdata.cluster.task", "OUT"], "OUT/claims/*")
wait_for_stop(process)
process.send_signal(signal.SIGCONT)  # or kill it
"""

from __future__ import annotations

import glob
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any


def start_stopping(arguments: Sequence[str], pattern: str, **options: Any) -> subprocess.Popen[bytes]:
    """`python -m MODULE ARGUMENT...` that stops itself at its first call once `pattern` has a new path."""
    assert arguments[0] == "-m"
    return subprocess.Popen([sys.executable, __file__, pattern, *arguments[1:]], start_new_session=True, **options)


def wait_for_stop(process: subprocess.Popen[bytes]) -> None:
    """Returns when it has stopped itself; fails if it ended instead."""
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    assert state.si_code == os.CLD_STOPPED, f"it ended with {process.wait()} before there was such a file"


def kill_when_stopped(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for it and its children, where it stops itself."""
    wait_for_stop(process)
    kill(process)


def kill_after(seconds: float, arguments: Sequence[str]) -> None:
    """`python ARGUMENT...`, killed with its children after so long: over by then or not."""
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    pattern, module = sys.argv[1:3]
    before = set(glob.glob(pattern))
    is_over = False

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal is_over
        if is_over or not (event == "open" or event.startswith("os.")):
            return
        is_over = True  # the search calls the system too
        if not before.issuperset(glob.glob(pattern)):
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            is_over = False

    sys.addaudithook(hook)
    sys.path[0] = os.getcwd()  # as `python -m` has it
    sys.argv[1:3] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
