"""How busy a GPU is: seconds in which a kernel ran on it, from the samples that `nvidia-smi` takes of its utilisation.

A GPU that `nvidia-smi` says nothing of (a MIG slice, another maker, no such program) is unknown, which is no error.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
import time

log = logging.getLogger(__name__)

SAMPLE_S = 5
_QUERY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop={SAMPLE_S}")


class GpuMeter:
    """Counts from when it is made until `close`, also the kernels of other processes on the same GPU."""

    def __init__(self, program: str, gpu: str) -> None:
        """program: path of nvidia-smi; gpu: its UUID."""
        self._busy_s = 0.0
        self._is_known = False
        self._since = time.monotonic()
        self._process = subprocess.Popen(
            [program, f"--id={gpu}", *_QUERY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._listen, name="gpumeter", daemon=True)
        self._thread.start()

    def busy_s(self) -> float | None:
        """Seconds so far; None as long as, or from when on, nothing is known."""
        return self._busy_s if self._is_known else None

    def close(self) -> None:
        """Does not wait for a program that hangs in a driver: a task has seconds to end."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        self._thread.join(timeout=1)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as samples:
            for sample in samples:
                try:
                    share = int(sample) / 100
                except ValueError:  # [N/A]
                    log.info("nvidia-smi does not know how busy the GPU is: %s", sample.strip())
                    break
                now = time.monotonic()
                self._busy_s += share * (now - self._since)
                self._since, self._is_known = now, True
        self._is_known = False


def start(device: str) -> GpuMeter | None:
    """Of a torch device of this process; None where it is no GPU, or nobody can tell how busy it is."""
    program = shutil.which("nvidia-smi")
    if not device.startswith("cuda") or program is None:
        return None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        return None if uuid is None else GpuMeter(program, f"GPU-{uuid}")
    except OSError as error:
        log.info("nvidia-smi cannot be run: %s", error.strerror)
        return None
