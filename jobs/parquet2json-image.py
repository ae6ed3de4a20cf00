"""A downloaded set of Parquet -> its pictures and one JSON: `hpcdata convert llava-parquet` by this name.

    python jobs/parquet2json-image.py ReCap-118K coco118k_stage1.5_finetune_w_prompt.json [key=value ...]

reads ReCap-118K in this folder (or in $HPCDATA_DATA_ROOT), and makes ReCap-118K/image/ and ReCap-118K/NAME.json in
`converted` (or in $HPCDATA_TARGET_ROOT). Its pictures are named ReCap-118K/image/..., as those of the other scripts'
sets are: train with the folder above as data.image_root. Beside the JSON stand rejects.csv (id,reason) and names.csv.
The same line again finishes what was interrupted; memory does not grow with the set.
"""

import os
import sys

from hpcdata.base.command import Parser, path
from hpcdata.convert import LLAVA, main


def arguments() -> list[str]:
    """As `hpcdata convert` has them."""
    parser = Parser("parquet2json-image", __doc__, prog="jobs/{}.py")
    parser.add_argument("folder", type=path, help="name of the set's folder")
    parser.add_argument("json", metavar="NAME.json", help="of the JSON to make")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of hpcdata convert, and its options"
    )
    known, others = parser.parse_known_args()
    source = os.path.join(os.environ.get("HPCDATA_DATA_ROOT", ""), known.folder)
    if not os.path.isdir(source):
        parser.error(f"{os.path.abspath(source)} is no folder: go to where it lies, or set HPCDATA_DATA_ROOT to that")
    name = os.path.basename(os.path.abspath(known.folder))
    json = known.json if known.json.endswith((".json", ".jsonl")) else f"{known.json}.json"
    target = os.path.join(os.environ.get("HPCDATA_TARGET_ROOT", "converted"), name)
    prefix = f"convert.image_prefix={name}/image/"
    return [LLAVA, source, target, "--name", json, prefix, *known.overrides, *others]


if __name__ == "__main__":
    sys.exit(main(arguments()))
