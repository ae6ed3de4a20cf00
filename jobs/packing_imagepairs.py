"""Liquid's Hugging Face folder of a run: `python jobs/packing_imagepairs.py --temp_path TEMP --save_path OUT`.

Combines the run that `jobs/convert_imagepair_cc512.py` has finished at TEMP, and exports it, shuffled by seed 42.
"""

import sys
from collections.abc import Sequence

from hpcdata import combine, export
from hpcdata.base.command import DONE, Options, Parser, path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("packing_imagepairs", __doc__, prog="jobs/{}.py")
    parser.add_argument("--temp-path", type=path, required=True, metavar="DIR", help="the folder of the run")
    parser.add_argument("--save-path", type=path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--num-shards", metavar="N", help="files to cut it into (up to 256, of 1000 rows or more)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the export")
    return parser.run(arguments, _pack)


def _pack(options: Options) -> int:
    code = combine.main([options.temp_path])
    if code != DONE:
        return code
    num_shards = ["--num-shards", options.num_shards] if options.num_shards else []
    return export.main([options.temp_path, options.save_path, "--format", "liquid", *num_shards, *options.overrides])


if __name__ == "__main__":
    sys.exit(main())
