"""Cancel: ends every job of a run, the finishing job first, and says what is kept.

    hpcdata cancel OUT

Tasks make a checkpoint before they end. Nothing that is written is removed; `hpcdata resume OUT` goes on from there.
Tasks that are no jobs (cluster=local) end with Ctrl-C where they were started.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import Options, Parser, say, to_type


def parser() -> Parser:
    parser = Parser("cancel", __doc__)
    parser.add_run()
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _cancel)


def _cancel(options: Options) -> int:
    import json

    from hpcdata.cluster.cancelling import cancel
    from hpcdata.report.status import read_status

    path = Path(options.run)
    job_ids, status = cancel(path), read_status(path)
    line = None if status.is_finished else to_type("resume", path.absolute())
    if options.json:
        names = ("done", "num_shards", "samples_done", "num_samples")
        kept = {name: getattr(status, name) for name in names}
        print(json.dumps({"run": str(path.absolute()), "cancelled": job_ids, **kept, "next": line}, indent=1))
        return 0
    say(f"cancelled {', '.join(job_ids)}" if job_ids else "no job of this run is in the queue")
    shards = f"{status.done} of {status.num_shards} shards and the checkpoints of others"
    say(f"kept      {status.samples_done} of {status.num_samples} samples: {shards}")
    if line:
        say(f"next      {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
