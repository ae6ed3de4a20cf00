"""Rejects: lists and counts what a run has not written, and tries it again.

    python -m hpcdata.rejects OUT                       counts by reason, and the first rows
    python -m hpcdata.rejects OUT --reason truncated    all rows of one reason (`--reason duplicate` for duplicates)
    python -m hpcdata.rejects OUT --json                one JSON object a row
    python -m hpcdata.rejects OUT --retry               encodes them again, after a path was fixed; then combine again

Rows are read from the shards' ledgers one at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hpcdata.errors import UserError
from hpcdata.plan import RunPaths, load_plan
from hpcdata.retry import RetryResult, retry, rows_of
from hpcdata.tables import DUPLICATE, RejectRow

FIRST_ROWS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hpcdata.rejects", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="output directory of the run (data.token_output_dir)")
    parser.add_argument("--reason", help="only rejects for this reason")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, all rows")
    parser.add_argument("--retry", action="store_true", help="encode them again and add what succeeds")
    parser.add_argument(
        "--accept_changed", action="store_true", help="with --retry: read inputs that changed since they were planned"
    )
    options = parser.parse_args(arguments)
    try:
        if options.retry:
            return _retry(options)
        return _list(Path(options.run), options.reason, as_json=options.json)
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 0
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return 1


def _list(run: Path, reason: str | None, *, as_json: bool) -> int:
    plan, paths = load_plan(run), RunPaths(run.absolute())
    counts: Counter[str] = Counter()
    shown = 0
    for row in rows_of(paths, plan):
        counts[row.reason] += 1
        if row.reason != reason if reason else row.reason == DUPLICATE:
            continue
        if as_json:
            print(json.dumps(dataclasses.asdict(row)))
        elif reason or shown < FIRST_ROWS:
            print(_line(row))
        shown += 1
    if not as_json:
        _print_counts(counts, hidden=0 if reason else max(0, shown - FIRST_ROWS))
    return 0


def _print_counts(counts: Counter[str], *, hidden: int) -> None:
    if hidden:
        print(f"... and {hidden} more (--reason R or --json lists them)")
    duplicates = counts.pop(DUPLICATE, 0)
    for reason, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"{number:>9}  {reason}")
    print(f"{counts.total():>9}  rejects, and {duplicates} duplicates")


def _line(row: RejectRow) -> str:
    text = f"{row.index}  {row.reason}  {row.key}  {row.source}@{row.offset}  {row.message}"
    return "".join(item if item.isprintable() else "?" for item in text)


def _retry(options: argparse.Namespace) -> int:
    from hpcdata.logs import configure

    configure("retry")
    result = retry(options.run, reason=options.reason, accept_changed=options.accept_changed)
    if options.json:
        print(json.dumps(dataclasses.asdict(result)))
    else:
        _print_result(result, options.run)
    return 1 if result.problems else 0


def _print_result(result: RetryResult, run: str) -> None:
    def named(counts: Counter[str]) -> str:
        return f" ({', '.join(f'{reason} {number}' for reason, number in sorted(counts.items()))})" if counts else ""

    print(f"tried      {result.tried}")
    print(f"written    {result.recovered.total()}{named(result.recovered)} in {', '.join(result.parts) or 'no part'}")
    print(f"rejected   {result.still_rejected.total()}{named(result.still_rejected)}")
    if result.renamed:
        print(f"skipped    {result.renamed}: the changed input has other samples in their places")
    for problem in result.problems:
        print(f"not read   {problem}")
    if result.parts:
        print(f"next       python -m hpcdata.combine {run}")


if __name__ == "__main__":
    sys.exit(main())
