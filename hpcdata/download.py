"""Download: fetches named data sets, goes on where it was killed, and says what is here.

    hpcdata download --list                               all sets: size, licence, splits, state, what to do
    hpcdata download chart_qa --n-proc 12                 one set, into $MOLMO_DATA_DIR
    hpcdata download pixmo llava-stage1 --n-proc 12       groups; `all` is every set
    hpcdata download --check chart_qa                     reads everything back: what is missing or damaged, and why

Type the same line again after a kill: files that are here are not asked for again, others go on at the byte where they
were. Several processes, tasks of an array and machines may do the same at the same time: they share the work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, path


def parser() -> Parser:
    parser = Parser("download", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets or groups of them; all")
    for_procs = ("--n-proc", "--n_proc", "--n_procs", "--n-procs")
    parser.add_argument(*for_procs, type=int, default=1, help="files in work at once (default: %(default)s)")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="where sets lie (default: $MOLMO_DATA_DIR)")
    parser.add_argument(
        "--catalogue", type=path, metavar="DIR", action="append", default=[], help="entries of your own, NAME.yaml"
    )
    parser.add_argument("--list", action="store_true", help="the sets, and how each of them is")
    parser.add_argument("--check", action="store_true", help="read everything back in place of fetching")
    parser.add_argument("--update", action="store_true", help="ask the hub for newer revisions of what is here")
    parser.add_argument("--patience", type=float, default=900, help="seconds without a byte before a file is given up")
    parser.add_argument("--checkpoint-mb", type=float, default=64, help="what a kill may cost of a file (default: 64)")
    parser.add_argument(
        "--connections", type=int, default=8, help="most at once: a large file gets several where one is slow"
    )
    parser.add_argument("--ignore-errors", "--ignore_errors", action="store_true", help="exit 0 whatever is missing")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _download)


def _download(options: Options) -> int:
    import math

    from hpcdata.base.errors import UserError
    from hpcdata.catalogue import commanding

    for name in ("patience", "checkpoint_mb"):
        if not (math.isfinite(value := getattr(options, name)) and value >= 0):
            raise UserError(f"--{name.replace('_', '-')} is {value}, expected a number that is not negative")
    if options.list:
        return commanding.list_sets(options.names, options.data_dir, options.catalogue, as_json=options.json)
    wishes = commanding.Wishes(
        names=options.names,
        data_dir=options.data_dir,
        folders=options.catalogue,
        num_at_once=options.n_proc,
        patience_s=options.patience,
        interval=max(1, int(options.checkpoint_mb * 2**20)),
        num_connections=options.connections,
        update=options.update,
        ignore_errors=options.ignore_errors,
        as_json=options.json,
    )
    return commanding.check_sets(wishes) if options.check else commanding.fetch_sets(wishes)


if __name__ == "__main__":
    sys.exit(main())
