"""Logs: the ends of the logs that matter; tasks that failed alike are told once.

    hpcdata logs OUT --failed            tasks that failed, died or are gone, with the end of their log
    hpcdata logs OUT --task 4242_7       one task, whatever became of it
    hpcdata logs OUT --tail 50           more lines; without --failed those of all tasks

Lines that could quote captions or prompts are left out; `--raw` shows everything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, say


def parser() -> Parser:
    parser = Parser("logs", __doc__)
    parser.add_run()
    parser.add_argument("--failed", action="store_true", help="only tasks that failed or died")
    parser.add_argument("--task", metavar="T", help="only this one, as status names it: 4242_7 or 4242_7/0")
    parser.add_argument("--tail", type=int, default=15, metavar="N", help="lines of each log (15)")
    parser.add_argument("--raw", action="store_true", help="all lines as they are; may show texts of samples")
    parser.add_json("print one JSON object a task")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _show)


def _show(options: Options) -> int:
    import dataclasses
    import json

    from hpcdata.report.tails import read_tails, show

    tails = read_tails(
        options.run, only_failed=options.failed, task=options.task, num_lines=options.tail, raw=options.raw
    )
    if options.json:
        for tail in tails:
            print(json.dumps(dataclasses.asdict(tail)))
        return 0
    for line in show(tails):
        say(line)
    if not tails:
        say("no task has failed" if options.failed else "no task has started")
    return 0


if __name__ == "__main__":
    sys.exit(main())
