"""Cancel: ends every job of a run, the finishing job first, and says what is kept.

    python -m hpcdata.cancel OUT

Tasks make a checkpoint before they end. Nothing that is written is removed; `hpcdata.resume` goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata import submissions
from hpcdata.errors import UserError
from hpcdata.plan import RunPaths, load_plan
from hpcdata.slurm import queue

MAX_LOOKS = 5
"""A finishing job may submit others while it is cancelled."""


def cancel(output_dir: Path) -> list[str]:
    """Returns the ids of the jobs. Raises UserError when this is not a run, or without a scheduler."""
    load_plan(output_dir)
    paths = RunPaths(output_dir.absolute())
    cancelled: list[str] = []
    for _ in range(MAX_LOOKS):
        jobs = queue.active_jobs(paths, submissions.read(paths))
        new = [job for job in jobs if job.job_id not in cancelled]
        if not new:
            break
        submissions.add_cancelled(paths)
        for kind in ("finish", "tasks"):
            queue.cancel([job.job_id for job in new if job.kind == kind])
        cancelled += [job.job_id for job in new]
    return cancelled


def main(arguments: Sequence[str] | None = None) -> int:
    from hpcdata.status import read_status

    parser = argparse.ArgumentParser(
        prog="python -m hpcdata.cancel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="output directory of the run (data.token_output_dir)")
    run = Path(parser.parse_args(arguments).run)
    try:
        job_ids = cancel(run)
        status = read_status(run)
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1
    print(f"cancelled {', '.join(job_ids)}" if job_ids else "no job of this run is in the queue")
    kept = f"{status.done} of {status.num_shards} shards and the checkpoints of others"
    print(f"kept      {status.samples_done} of {status.num_samples} samples: {kept}")
    if not status.is_finished:
        print(f"next      python -m hpcdata.resume {run.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
