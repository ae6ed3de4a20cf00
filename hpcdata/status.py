"""Status of a run: shards done, running and waiting, the account so far, rejects by reason, rate and time left.

    hpcdata status OUT                 a few lines
    hpcdata status OUT --watch         a live view, until the run is finished
    hpcdata status OUT --json          one object; its keys are the fields of `Status` and `Task`
    hpcdata status OUT --html FILE     a page with charts, in one file

It reads no data, and the run is not disturbed. Its exit code says how the run is: 0 all shards are committed;
3 unfinished; 1 failed: tasks failed and nobody is at work, the finishing job gave up, or too many inputs are rejected.
`--html` ends with 0 when the page is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcdata.base.command import DONE, FAILED, UNFINISHED, Options, Parser, path, say

_KEYS = """keys of --json: the fields of Status and Task in hpcdata/report/status.py and hpcdata/history/tasks.py;
hpcdata/history/history.py defines useful, lost, overhead and queued seconds and goodput"""

CODES = {"finished": DONE, "unfinished": UNFINISHED, "failed": FAILED}
"""Of the states of a run."""


def parser() -> Parser:
    parser = Parser("status", __doc__, more=lambda: _KEYS)
    parser.add_run()
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--watch", action="store_true", help="a live view until the run is finished")
    form.add_argument("--html", type=path, metavar="FILE", help="write a page with charts that opens without a network")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between looks of --watch (5)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _show)


def _show(options: Options) -> int:
    import dataclasses
    import gc
    import json
    from pathlib import Path

    from hpcdata.base.errors import UserError
    from hpcdata.report.status import Observer
    from hpcdata.report.summary import describe

    observer = Observer(options.run)
    if options.watch:
        from hpcdata.report.watch import watch

        if options.every <= 0:
            raise UserError(f"--every {options.every}: expected a number of seconds above 0")
        return CODES[watch(observer, options.every).state]
    status = observer.look(ask_scheduler=True)
    gc.freeze()  # what was read stays to the end
    if options.html:
        from hpcdata.base.files import to_bytes, write_atomic
        from hpcdata.report.page import render

        page, path = to_bytes(render(observer, status)), Path(options.html)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # /dev/stdout
            path.write_bytes(page)
        else:
            write_atomic(path.resolve(), page)
        return DONE
    if options.json:
        print(json.dumps(dataclasses.asdict(status), indent=1))
    else:
        say(describe(status, options.run))
    return CODES[status.state]


if __name__ == "__main__":
    sys.exit(main())
