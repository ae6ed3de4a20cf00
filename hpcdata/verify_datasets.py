"""Verify-datasets: opens every split of named data sets that are here, and decodes a sample of each.

    hpcdata verify-datasets                       all that are in $MOLMO_DATA_DIR
    hpcdata verify-datasets chart_qa pixmo --all  these, each example of them

It says how many examples each split has (beside what its entry says), and which cannot be decoded, by their reasons;
and of which sets the files were brought by another way than `hpcdata download`, so that nobody has checked them.
`hpcdata download --check` looks at the bytes of the files, by their sha256.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, UNFINISHED, Options, Parser, path, quoted, say

if TYPE_CHECKING:
    from hpcdata.multimodal.datasets.verifying import SplitReport


def parser() -> Parser:
    parser = Parser("verify-datasets", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets or groups (default: all that are here)")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="where sets lie (default: $MOLMO_DATA_DIR)")
    parser.add_argument(
        "--catalogue", type=path, metavar="DIR", action="append", default=[], help="your own entries, NAME.yaml"
    )
    parser.add_argument("--sample", type=int, default=100, help="examples of each split (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="every example")
    for_procs = ("--n-proc", "--n_proc", "--n_procs", "--n-procs")
    parser.add_argument(*for_procs, type=int, default=4, help="examples in work at once (default: %(default)s)")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _verify)


def _verify(options: Options) -> int:
    import json

    from hpcdata.base.errors import UserError
    from hpcdata.catalogue.registry import ALL, Catalogue
    from hpcdata.catalogue.settings import find_data_dir, find_folders
    from hpcdata.multimodal.datasets.verifying import is_here, look_at

    for name in ("sample", "n_proc"):
        if (value := getattr(options, name)) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}, expected 1 or more")
    root, catalogue = find_data_dir(options.data_dir), Catalogue(find_folders(options.catalogue))
    entries, named = catalogue.choose(options.names or [ALL]), catalogue.asked_for(options.names)
    here = [entry for entry in entries if is_here(entry, root)]
    found = []
    for entry in here:
        most = None if options.all else options.sample
        for report in look_at(entry, root, most=most, num_threads=options.n_proc):
            found.append(report)
            if not options.json:
                say(_line(report))
    away = [entry.name for entry in entries if entry not in here]
    if options.json:
        reports = [vars(report) for report in found]
        print(json.dumps({"splits": reports, "not_here": away if options.names else []}))
    else:
        say(f"{len(here)} of {len(entries)} sets are in {root}; hpcdata download --list says what to do for the others")
        if unchecked := dict.fromkeys(report.name for report in found if not report.is_checked):
            say(f"to read these through: hpcdata download {' '.join(map(quoted, unchecked))}")
    if not all(report.is_good() for report in found):
        return FAILED
    unread = {report.name for report in found if report.unread}
    return UNFINISHED if named & {*away, *unread} else DONE


def _line(report: SplitReport) -> str:
    what = f"{report.name}, {report.split}: "
    if report.problem or report.unread:
        return what + (report.problem or report.unread)
    what += f"{report.num_examples} examples"
    if report.expected is not None:
        what += ", as its entry says" if not report.is_short() else f", its entry says {report.expected}"
    if report.num_missing:
        what += f" + {report.num_missing} whose picture did not come"
    if report.num_left_out:
        what += f" + {report.num_left_out} that its entry leaves out"
    what += f"; {report.num_looked} made, {report.num_pictures} pictures decoded"
    for reason, count in sorted(report.faults.items()):
        what += f", {count} {reason}"
    if not report.is_checked:
        what += "; nobody has checked its files"
    return what + (f" ({report.first})" if report.first else "")


if __name__ == "__main__":
    sys.exit(main())
