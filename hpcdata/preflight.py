"""Preflight: what the cluster and the output folder mean for a run, a line each; refuses what cannot work.

    hpcdata preflight ...the arguments of hpcdata launch...

The launcher does the same before each submission. It asks the scheduler a handful of questions and starts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, say
from hpcdata.launch import overrides_parser


def parser() -> Parser:
    parser = overrides_parser("preflight", __doc__)
    parser.add_json("print the lines in one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    return parser().run(given or ["--help"], _check)


def _check(options: Options) -> int:
    import json

    from hpcdata.cluster.preflight import check
    from hpcdata.config.compose import compose

    lines = list(check(compose(options.overrides, options.config_dir)))
    say(json.dumps({"lines": lines}, indent=1) if options.json else "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
