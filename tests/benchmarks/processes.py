"""Whole processes, timed: for the benchmarks of commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence


def timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds that a command takes, and the peak of its memory in MB; ends this process when it fails.

    The peak is never below the memory of this process: the kernel counts from before the program was started.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command[:6])} failed:\n{errors.decode()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024
