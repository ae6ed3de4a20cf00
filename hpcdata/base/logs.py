"""How log lines look, in one place: time, level, who, what. Called by entry points only.

`python -m hpcdata.logs OUT --failed` shows the ends of the logs that matter, see `tails`.

2026-11-21 09:12:57 INFO [4242_7/0@node3] shard 00003-of-00064: committed in 41.2 s: ...
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping

from hpcdata.base import units


def configure(prefix: str | None = None, level: int = logging.INFO) -> None:
    """Sends all log lines to stderr, each with `[prefix]` (by default `process_name()`). May be called again."""
    _send(process_name() if prefix is None else prefix, level)


def rename(prefix: str | None = None) -> None:
    """Gives the lines another prefix where an entry point of ours has called `configure`; else changes nothing.

    A program that calls us keeps its own logging.
    """
    if any(isinstance(handler.formatter, _Formatter) for handler in logging.getLogger().handlers):
        configure(prefix)


def _send(name: str, level: int) -> None:
    escaped = name.replace("%", "%%")
    formatter = _Formatter(f"%(asctime)s %(levelname)s [{escaped}] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Control characters in foreign names are shown, not obeyed."""
        return units.printable(super().format(record))


def process_name(environ: Mapping[str, str] = os.environ) -> str:
    """`job_element/process@node` under SLURM, `pid@host` elsewhere."""
    job_id = slurm_job_id(environ)
    if job_id is None:
        return f"{os.getpid()}@{socket.gethostname()}"
    return f"{job_id}/{environ.get('SLURM_PROCID', '0')}@{environ.get('SLURMD_NODENAME', socket.gethostname())}"


def slurm_job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The id that scontrol and sacct take for this job or array element, None outside of SLURM.

    An element's SLURM_JOB_ID will not do: for the last element it is the id of the whole array.
    """
    array, index = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else environ.get("SLURM_JOB_ID")
