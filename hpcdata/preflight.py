"""Preflight: what the cluster and the output folder mean for a run, a line each; refuses what cannot work.

    hpcdata preflight ...the arguments of hpcdata launch...

The launcher does the same before each submission. It asks the scheduler a handful of questions and starts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import run, wants_help


def main(arguments: Sequence[str] | None = None) -> int:
    overrides = list(sys.argv[1:] if arguments is None else arguments)
    if not overrides or wants_help(overrides):
        print(__doc__)
        return 0
    return run(lambda: _check(overrides))


def _check(overrides: Sequence[str]) -> int:
    from hpcdata.cluster.preflight import check
    from hpcdata.config.compose import compose

    for line in check(compose(overrides)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
