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

from hpcdata.base.command import Options, Parser


def parser() -> Parser:
    parser = Parser("resume", __doc__)
    parser.add_run()
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that do not change what is written")
    parser.add_config_dir()
    parser.add_json("print what was submitted or made as one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _resume)


def _resume(options: Options) -> int:
    from hpcdata.base.logs import configure
    from hpcdata.cluster.resuming import resume
    from hpcdata.launch import tell

    configure("resume")
    return tell(resume(Path(options.run), options.overrides, options.config_dir), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
