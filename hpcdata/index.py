"""Index: writes the index of tars that wids reads, as `widsindex create` does.

    hpcdata index '/data/*.tar'                         -> shardindex.json
    hpcdata index '/data/*.tar' -o /data/index.json --checksums

Only headers are read, in parallel over the files; `--checksums` adds the md5sum of every tar, which reads them whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hpcdata.base.command import Options, Parser, complain, path, say


def parser() -> Parser:
    parser = Parser("index", __doc__)
    parser.add_argument("tars", type=path, nargs="+", help="paths, globs or brace lists of tars")
    parser.add_argument(
        "--output", "-o", type=path, default="shardindex.json", help="the index file (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--checksums", action="store_true", help="add the md5sum of every tar")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _index)


def _index(options: Options) -> int:
    import json
    import time

    from hpcdata.formats.wids_index import make_index, problems

    started = time.monotonic()
    tars = make_index(options.tars, options.output, num_workers=options.workers, has_checksums=options.checksums)
    seconds, num_samples = time.monotonic() - started, sum(tar.num_samples for tar in tars)
    for tar in tars:
        if tar.damages:
            complain(f"{tar.path} is damaged at byte {tar.damages[0]}")
    for problem in problems(tars):
        complain(f"{problem}: rename it")
    if options.json:
        damaged = {tar.path: list(tar.damages) for tar in tars if tar.damages}
        print(json.dumps({"index": options.output, "tars": len(tars), "samples": num_samples, "damaged": damaged}))
        return 0
    rate = num_samples / max(seconds, 1e-9)
    say(f"{options.output}: {len(tars)} tars, {num_samples} samples, {seconds:.1f} s ({rate:.0f} samples/s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
