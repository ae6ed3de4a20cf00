"""The sets of LLaVA-OneVision-Mid-Data made ready for training: `hpcdata convert sets` by this name.

    python jobs/ov_mid_data_imagenet2backbone.py [--source-root OneVisionMidData] [--target-root DIR] [--set SET ...]

Sets of JSON get their archives of pictures (image*.tar.gz) unpacked. JSON_Mapping.csv in the source folder, if it is
there, says how the JSON of each set is called. Without --source-root it is read in this folder, or in
$HPCDATA_DATA_ROOT, without --target-root made in `converted`, or in $HPCDATA_TARGET_ROOT.
"""

import os
import sys

from hpcdata.base.command import Parser
from hpcdata.convert import SETS, main

NAME = "OneVisionMidData"


def arguments() -> list[str]:
    """As `hpcdata convert` has them."""
    source = os.path.join(os.environ.get("HPCDATA_DATA_ROOT", ""), NAME)
    target = os.path.join(os.environ.get("HPCDATA_TARGET_ROOT", "converted"), NAME)
    parser = Parser("ov_mid_data_imagenet2backbone", __doc__, prog="jobs/{}.py")
    parser.add_argument("--source-root", default=source, help="folder of the sets")
    parser.add_argument("--target-root", default=target, help="folder to make them in")
    parser.add_argument("--cache-dir", help="not needed: Parquet is read where it is")
    known, others = parser.parse_known_args()
    mapping = os.path.join(known.source_root, "JSON_Mapping.csv")
    if os.path.isfile(mapping) and "--mapping" not in others:
        others += ["--mapping", mapping]
    return [SETS, known.source_root, known.target_root, *others]


if __name__ == "__main__":
    sys.exit(main(arguments()))
