"""Texts for Liquid, by the name that its users know: DCLM's .json.zst -> a Hugging Face folder with Liquid's columns.

    python jobs/convert_DCLM_data.py --input_path FOLDER --temp_path TEMP --save_path OUT

Reads .jsonl, .json, .zst and .gz below FOLDER. TEMP is the folder of the run; the same line again goes on. More
settings are those of `hpcdata launch +experiments=liquid_text`, such as cluster=local cluster.array=0-7.
"""

import sys
from collections.abc import Sequence

from hpcdata import export, launch
from hpcdata.base.command import DONE, Options, Parser, path
from hpcdata.jobs import packing_imagepairs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("convert_DCLM_data", __doc__, prog="jobs/{}.py")
    parser.add_argument(
        "--input-path", type=path, required=True, metavar="DIR", help="folder of JSON lines, compressed or not"
    )
    parser.add_argument("--temp-path", type=path, required=True, metavar="DIR", help="the folder of the run")
    parser.add_argument("--save-path", type=path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--num-shards", metavar="N", help="files to cut it into (up to 256, of 1000 rows or more)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the launch")
    return parser.run(arguments, _convert)


def _convert(options: Options) -> int:
    export.require_place(options.temp_path, options.save_path, "liquid")
    places = [f"data.raw_data_dir={options.input_path}", f"data.token_output_dir={options.temp_path}"]
    code = launch.main(["+experiments=liquid_text", *places, *options.overrides])
    if code != DONE:
        return code
    num_shards = ["--num-shards", options.num_shards] if options.num_shards else []
    return packing_imagepairs.main(["--temp-path", options.temp_path, "--save-path", options.save_path, *num_shards])


if __name__ == "__main__":
    sys.exit(main())
