"""Rejects: lists and counts what a run has not written, and tries it again.

    hpcdata rejects OUT                       counts by reason, and the first rows
    hpcdata rejects OUT --reason truncated    all rows of one reason (`--reason duplicate` for duplicates)
    hpcdata rejects OUT --json                one JSON object a row
    hpcdata rejects OUT --retry               makes them again, after a path was fixed; then combine again

Rows are read from the shards' ledgers one at a time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, Options, Parser, say, to_type

if TYPE_CHECKING:
    from hpcdata.shards.reject_ledger import RejectRow
    from hpcdata.work.retry import RetryResult

FIRST_ROWS = 20


def parser() -> Parser:
    parser = Parser("rejects", __doc__)
    parser.add_run()
    parser.add_argument("--reason", help="only rejects for this reason")
    parser.add_json("print one JSON object a line, all rows")
    parser.add_argument("--retry", action="store_true", help="make them again and add what succeeds")
    parser.add_argument(
        "--accept-changed", action="store_true", help="with --retry: read inputs that changed since they were planned"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, lambda options: _retry(options) if options.retry else _list(options))


def _list(options: Options) -> int:
    import json

    from hpcdata.runs.rejects import may_come, picture_folders, require_known, rows_of
    from hpcdata.shards.reject_ledger import DUPLICATE

    require_known(options.reason)
    counts: Counter[str] = Counter()
    shown, folders = 0, picture_folders(Path(options.run))
    for row in rows_of(Path(options.run)):
        counts[row.reason] += 1
        if row.reason != options.reason if options.reason else row.reason == DUPLICATE:
            continue
        if options.json:
            print(json.dumps(row.to_mapping()))
        elif options.reason or shown < FIRST_ROWS:
            say(_line(row, folders))
        shown += 1
    if not options.json:
        _print_counts(counts, hidden=0 if options.reason else max(0, shown - FIRST_ROWS))
        for line in may_come(counts, options.run):
            say(line)
    return 0


def _print_counts(counts: Counter[str], *, hidden: int) -> None:
    from hpcdata.shards.reject_ledger import DUPLICATE

    if hidden:
        say(f"... and {hidden} more (--reason R or --json lists them)")
    duplicates = counts.pop(DUPLICATE, 0)
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        say(f"{number:>9}  {reason}")
    say(f"{counts.total():>9}  rejects, and {duplicates} duplicates")


def _line(row: RejectRow, folders: Mapping[str, str]) -> str:
    text = f"{row.index}  {row.reason}  {row.key}  {row.source}@{row.offset}  {row.message}"
    if row.reason == "missing_image" and row.source in folders:
        text += f" (looked in {folders[row.source]})"
    return "".join(item if item.isprintable() else "?" for item in text)


def _retry(options: Options) -> int:
    import json

    from hpcdata.base.logs import configure
    from hpcdata.runs.rejects import require_known
    from hpcdata.work.retry import retry

    require_known(options.reason)
    configure("retry")
    result = retry(options.run, reason=options.reason, accept_changed=options.accept_changed)
    if options.json:
        print(json.dumps(vars(result)))
    else:
        _print_result(result, options.run)
    return FAILED if result.problems else DONE


def _print_result(result: RetryResult, path: str) -> None:
    def named(counts: Counter[str]) -> str:
        return f" ({', '.join(f'{reason} {number}' for reason, number in sorted(counts.items()))})" if counts else ""

    say(f"tried      {result.tried}")
    say(f"written    {result.recovered.total()}{named(result.recovered)} in {', '.join(result.parts) or 'no part'}")
    say(f"rejected   {result.still_rejected.total()}{named(result.still_rejected)}")
    if result.renamed:
        say(f"skipped    {result.renamed}: the changed input has other samples in their places")
    for problem in result.problems:
        say(f"not read   {problem}")
    if result.parts:
        say(f"next       {to_type('combine', path)}")


if __name__ == "__main__":
    sys.exit(main())
