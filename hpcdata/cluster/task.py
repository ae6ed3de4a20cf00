"""An array task as the scheduler sees it: work until nothing is left or a signal comes, then leave in the right way.

What a job must do to come back after SIGTERM was found by experiment on SLURM 22.05 (tests/slurm/test_task.py
repeats it). With PreemptMode=REQUEUE and a GraceTime, the steps of a preempted job get SIGTERM while the job is
still RUNNING, with its end time moved to the end of the grace. Then:

    it exits within the grace, code 0      job is TIMEOUT or COMPLETED: never requeued
    it exits within the grace, code not 0  job is FAILED: never requeued
    it ignores the signal                  killed after the grace, requeued; the nodes were held up for so long
    it requeues itself, then exits         requeued, and the nodes are free at once

Where GraceTime=0, or after `scontrol requeue`, the job is already marked for requeueing when SIGTERM arrives, and
comes back whatever it does. After scancel it is marked CANCELLED. So the one right answer to every signal is
`scontrol requeue Incomplete`: it acts on running jobs only and leaves cancelled and requeued ones as they are.
The decision is slurmctld's, under its lock, so that no cancellation can slip in between a question and an answer.
Signals that come before our handlers are installed kill Python: then the batch script asks the same (sbatch.py).

Exit codes: 0 nothing is left to do; 128 + signal when stopped, as shells have it; others as `base.command` has them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcdata.base import files, logs
from hpcdata.base.command import DONE, FAILED, Parser, exit_code
from hpcdata.base.errors import UserError
from hpcdata.base.signals import StopFlag
from hpcdata.config.array import parse_array
from hpcdata.config.schema import ClusterConfig
from hpcdata.runs.plan import load_runtime

log = logging.getLogger(__name__)

PAUSES_S = (1, 2, 4, 8, 15, *[30] * 19)
"""Between attempts to reach slurmctld: ten minutes in all."""


def parser() -> Parser:
    parser = Parser(
        "task", "Works on the shards of a planned run until none is left.", prog="python -m hpcdata.cluster.{}"
    )
    parser.add_run()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m hpcdata.cluster.task OUT`: what the batch script of an array starts, once for each process."""
    logs.configure()
    try:
        output_dir = Path(parser().parse_args(arguments).run)
        with files.modes_like(output_dir):
            return run_array_task(output_dir)
    except (UserError, OSError) as error:
        log.error("%s", error)
        return exit_code(error)


def run_array_task(output_dir: Path) -> int:
    """Works on the plan in `output_dir` and returns the exit code. Raises UserError."""
    logs.rename()
    with StopFlag() as stop:
        with contextlib.suppress(UserError):  # which the work below will tell
            _wait(start_delay_s(load_runtime(output_dir).cluster, os.environ), stop)
        if stop.received:
            return leave(stop)
        from hpcdata.work.task import TaskOutcome, run_task

        outcome = run_task(output_dir, stop)
        if outcome is TaskOutcome.STOPPED:
            return leave(stop)
        return DONE if outcome is TaskOutcome.FINISHED else FAILED


def start_delay_s(cluster: ClusterConfig, environment: Mapping[str, str]) -> float:
    """Seconds that this element of an array waits: those that start together are spread over `cluster.stagger_s`."""
    index, size = (int(environment.get(f"SLURM_ARRAY_TASK_{name}") or 0) for name in ("ID", "COUNT"))
    together = min(size, parse_array(cluster.array).max_running)
    return cluster.stagger_s * index / together if index < together else 0.0


def _wait(seconds: float, stop: StopFlag) -> None:
    end = time.monotonic() + seconds
    while stop.received is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))


def leave(stop: StopFlag) -> int:
    """Sees to it that a stopped task comes back where it should, and returns its exit code.

    Call it with the handlers still installed: requeueing sends SIGTERM to every process of the job.
    """
    received = stop.received
    assert received is not None, "nothing has asked this task to stop"
    job_id = logs.slurm_job_id()
    if job_id is None or received is signal.SIGINT:
        log.info("stopped by %s; run the same command again to continue", received.name)
    else:
        log.info("stopped by %s, leaves job %s for requeueing", received.name, job_id)
        if (refusal := requeue(job_id)) is not None:
            log.error("job %s is not requeued (%s); submit the same line again to continue", job_id, refusal)
    return 128 + received


def requeue(job_id: str) -> str | None:
    """Asks until slurmctld answers; None when it has, otherwise why this job does not come back.

    Who gives up and exits within the grace of a preemption is not requeued.
    """
    if shutil.which("scontrol") is None:  # in a container: the batch script outside asks, when it sees the exit code
        return None
    refusal: str | None = None
    for pause_s in PAUSES_S:
        refusal = _try_requeue(job_id)
        if refusal is None or "disabled" in refusal:  # submitted with --no-requeue, or an interactive job
            return refusal
        log.warning("requeueing job %s failed (%s), next attempt in %d s", job_id, refusal, pause_s)
        time.sleep(pause_s)
    return refusal


def _try_requeue(job_id: str) -> str | None:
    """None when done, otherwise why not."""
    command = ["scontrol", "requeue", "Incomplete", job_id]
    try:  # in a session of its own, because the signals that it causes go to the whole process group
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if result.returncode == 0 else (result.stderr or result.stdout).strip() or f"code {result.returncode}"


if __name__ == "__main__":
    sys.exit(main())
