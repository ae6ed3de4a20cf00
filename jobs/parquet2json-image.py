"""A downloaded set of Parquet -> its pictures and one JSON: `hpcdata convert llava-parquet` by this name.

    python jobs/parquet2json-image.py ReCap-118K coco118k_stage1.5_finetune_w_prompt.json [key=value ...]

reads ReCap-118K in this folder (or in $HPCDATA_DATA_ROOT), and makes ReCap-118K/image/ and ReCap-118K/NAME.json in
`converted` (or in $HPCDATA_TARGET_ROOT). Beside the JSON stand rejects.csv (id,reason) and names.csv. The same line
again finishes what was interrupted; memory does not grow with the set.
"""

import os
import sys

from hpcdata.base.command import Parser
from hpcdata.convert import LLAVA, main


def arguments() -> list[str]:
    """As `hpcdata convert` has them."""
    parser = Parser("parquet2json-image", __doc__, prog="jobs/{}.py")
    parser.add_argument("folder", help="name of the set's folder")
    parser.add_argument("json", metavar="NAME.json", help="of the JSON to make")
    known, others = parser.parse_known_args()
    source = os.path.join(os.environ.get("HPCDATA_DATA_ROOT", ""), known.folder)
    if not os.path.isdir(source):
        parser.error(f"{os.path.abspath(source)} is no folder: go to where it lies, or set HPCDATA_DATA_ROOT to that")
    name = os.path.basename(os.path.normpath(known.folder))
    target = os.path.join(os.environ.get("HPCDATA_TARGET_ROOT", "converted"), name)
    return [LLAVA, source, target, "--name", known.json, *others]


if __name__ == "__main__":
    sys.exit(main(arguments()))
