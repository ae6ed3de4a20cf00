"""How busy a GPU is: seconds in which a kernel ran on it, from samples of its utilisation that `nvidia-smi` takes.

A GPU that `nvidia-smi` says nothing of (a MIG slice, another maker, no such program) is unknown, which is no error.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time

log = logging.getLogger(__name__)

SAMPLE_S = 10.0
_TIMEOUT_S = 20.0
_SAMPLES_TO_MISS = 3


class GpuMeter:
    """Counts from when it is made until `close`, also the kernels of other processes on the same GPU."""

    def __init__(self, program: str, gpu: str, sample_s: float = SAMPLE_S) -> None:
        """program: path of nvidia-smi; gpu: its UUID."""
        self._command = [program, f"--id={gpu}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        self._sample_s = sample_s
        self._busy_s = 0.0
        self._known_at: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpumeter", daemon=True)
        self._thread.start()

    def busy_s(self) -> float | None:
        """Seconds so far; None as long as nothing is known, and when samples have been missing."""
        oldest = time.monotonic() - _SAMPLES_TO_MISS * self._sample_s - _TIMEOUT_S
        return self._busy_s if self._known_at is not None and self._known_at > oldest else None

    def close(self) -> None:
        """Does not wait for a program that hangs in a driver: a task has seconds to end."""
        self._closed.set()
        self._thread.join(timeout=1)

    def _watch(self) -> None:
        since = time.monotonic()
        while not self._closed.is_set():
            share, now = self._sample(), time.monotonic()
            if share is not None:
                self._busy_s += share * (now - since)
                self._known_at = since = now
            elif self._known_at is None:
                log.info("nvidia-smi does not say how busy the GPU is")
                return
            self._closed.wait(self._sample_s)

    def _sample(self) -> float | None:
        try:
            done = subprocess.run(self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S)
            return int(done.stdout) / 100
        except (OSError, subprocess.TimeoutExpired, ValueError):  # [N/A], or a signal to all of this job
            return None


def start(device: str) -> GpuMeter | None:
    """Of a torch device of this process; None where it is no GPU, or nobody can tell how busy it is."""
    program = shutil.which("nvidia-smi")
    if not device.startswith("cuda") or program is None:
        return None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else GpuMeter(program, f"GPU-{uuid}")
