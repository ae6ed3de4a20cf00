"""Unpack: unpacks archives into a folder, safely, and goes on where it was killed.

    hpcdata unpack images.zip image                 as `unzip images.zip -d image` does
    hpcdata unpack 'images_part*.tar.gz' image      several, one behind the other
    hpcdata unpack /data/OneVisionMidData/ureader_kg image          all archives in a folder

zip and tar are read, also tar.gz, tar.zst, tar.bz2 and tar.xz, and archives that were split into parts
(images.zip.part-aa, ...). Nothing is written outside of OUT and nothing that is there is replaced: links, devices,
names that lead out of OUT and damaged members are left out. OUT.members.csv says what became of each member. The same
line again goes on with the first member that is not in it, and makes again what is gone or was damaged. The exit code
is 1 where an archive or a member is damaged, encrypted or compressed in an unknown way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import DONE, FAILED, Options, Parser, path, say


def parser() -> Parser:
    parser = Parser("unpack", __doc__)
    parser.add_argument("src", type=path, help="archive, folder, glob or brace list")
    parser.add_argument("out", type=path, help="folder to unpack into")
    parser.add_argument("-d", action="store_true", help="no effect: OUT may stand behind it, as for unzip")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="of an archive (100 times its size and 256 MiB)")
    parser.add_argument("--max-members", type=int, metavar="N", help="of an archive (262,144 and one for 64 bytes)")
    parser.add_json()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _unpack)


def _unpack(options: Options) -> int:
    from hpcdata.archives.onearchive import Limits
    from hpcdata.archives.unpacking import unpack
    from hpcdata.base.logs import configure

    configure("unpack")
    made = unpack(options.src, Path(options.out), limits=Limits(bytes=options.max_bytes, members=options.max_members))
    if options.json:
        print(json.dumps([vars(item) for item in made], indent=1))
    else:
        for item in made:
            say(item.describe())
    return DONE if all(item.is_good for item in made) else FAILED


if __name__ == "__main__":
    sys.exit(main())
