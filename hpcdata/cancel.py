"""Cancel: ends every job of a run, the finishing job first, and says what is kept.

    hpcdata cancel OUT

Tasks make a checkpoint before they end. Nothing that is written is removed; `hpcdata resume OUT` goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import Parser, run


def parser() -> Parser:
    parser = Parser("cancel", __doc__)
    parser.add_run()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    path = Path(parser().parse_args(arguments).run)
    return run(lambda: _cancel(path))


def _cancel(path: Path) -> int:
    from hpcdata.cluster.cancelling import cancel
    from hpcdata.report.status import read_status

    job_ids = cancel(path)
    status = read_status(path)
    print(f"cancelled {', '.join(job_ids)}" if job_ids else "no job of this run is in the queue")
    kept = f"{status.done} of {status.num_shards} shards and the checkpoints of others"
    print(f"kept      {status.samples_done} of {status.num_samples} samples: {kept}")
    if not status.is_finished:
        print(f"next      python -m hpcdata.resume {path.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
