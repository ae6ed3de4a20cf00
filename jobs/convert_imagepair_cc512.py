"""Pictures and captions for Liquid, by the name that its users know: texts and codes in a run at --temp_path.

    python jobs/convert_imagepair_cc512.py --input_pair PAIRS.jsonl --temp_path TEMP --save_path OUT --vqgan_path CKPT

Again goes on; `packing_imagepairs.py` makes OUT. `image_path` of a line is absolute, or from the folder of PAIRS.jsonl.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata import export, launch
from hpcdata.base.command import Options, Parser, path
from hpcdata.jobs import precompute_tokens


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser("convert_imagepair_cc512", __doc__, prog="jobs/{}.py")
    parser.add_argument("--input-pair", required=True, metavar="FILE", help="JSON lines, or any input of a launch")
    parser.add_argument("--temp-path", required=True, metavar="DIR", help="the folder of the run")
    parser.add_argument("--save-path", metavar="DIR", help="checked; packing_imagepairs.py makes it")
    parser.add_argument("--vqgan-path", type=path, required=True, metavar="FILE", help="vqgan.ckpt, or its folder")
    parser.add_argument("--num-processes", type=int, default=1, metavar="N", help="processes here, one a GPU (1)")
    parser.add_argument("--num-chunks", type=int, metavar="N", help="this process is one of N that you start yourself")
    parser.add_argument("--chunk-idx", metavar="I", help="no effect: processes divide the work among them")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of +experiments=liquid")
    return parser.run(arguments, _convert)


def _convert(given: Options) -> int:
    export.require_place(given.temp_path, given.save_path, "liquid")
    weights = Path(given.vqgan_path, "vqgan.ckpt") if Path(given.vqgan_path).is_dir() else given.vqgan_path
    line = ["+experiments=liquid", f"data.raw_data_dir={given.input_pair}", f"data.token_output_dir={given.temp_path}"]
    line += [f"image.checkpoint={weights}", "data.outside_images=read"]
    local = ["cluster=local", f"cluster.array=0-{given.num_processes - 1}"] if given.num_processes > 1 else []
    return (precompute_tokens if given.num_chunks else launch).main([*line, *local, *given.overrides])


if __name__ == "__main__":
    sys.exit(main())
