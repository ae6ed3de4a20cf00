"""Liquid's Hugging Face folder of a run: `python jobs/packing_imagepairs.py --temp_path TEMP --save_path OUT`.

Combines the run that `jobs/convert_imagepair_cc512.py` has finished at TEMP, and exports it, shuffled by seed 42.
"""

import sys
from collections.abc import Sequence

from hpcdata import combine, export
from hpcdata.base.command import DONE, Options, Parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("packing_imagepairs", __doc__, prog="jobs/{}.py")
    parser.add_argument("--temp-path", required=True, metavar="DIR", help="the folder of the run")
    parser.add_argument("--save-path", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--num-shards", default="256", metavar="N", help="files to cut it into, at most (256)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the export")
    return parser.run(arguments, _pack)


def _pack(options: Options) -> int:
    code = combine.main([options.temp_path])
    if code != DONE:
        return code
    target = [options.temp_path, options.save_path, "--format", "liquid", "--num-shards", options.num_shards]
    return export.main([*target, *options.overrides])


if __name__ == "__main__":
    sys.exit(main())
