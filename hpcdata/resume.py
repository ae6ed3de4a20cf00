"""Resume: goes on with a run from what its folder remembers, with other transient settings if wanted.

    hpcdata resume OUT
    hpcdata resume OUT cluster.array=0-199%50 cluster.partition=preempt

While tasks are still in the queue, settings take their place: the new tasks are submitted first, then the old ones are
ended, which makes each of them write a checkpoint that the new ones continue. To add tasks, launch the same line again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import Parser, run


def parser() -> Parser:
    parser = Parser("resume", __doc__)
    parser.add_run()
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that do not change what is written")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return run(lambda: _resume(Path(options.run), options.overrides))


def _resume(path: Path, overrides: Sequence[str]) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster.resuming import resume

    configure("resume")
    return resume(path, overrides)


if __name__ == "__main__":
    sys.exit(main())
