"""The sets of LLaVA-OneVision-Data, Parquet and JSON, made ready for training: `hpcdata convert sets` by this name.

    python jobs/ov_data_imagenet2backbone.py [--source-root OneVisionData] [--target-root DIR] [--set SET ...]

Sets of JSON get their archives of pictures (image*.tar.gz) unpacked. JSON_Mapping.csv in the source folder, if it is
there, says how the JSON of each set is called. Without --source-root it is read in this folder, or in
$HPCDATA_DATA_ROOT, without --target-root made in `converted`, or in $HPCDATA_TARGET_ROOT.
--set, --mapping, --root-name, --write-incomplete and key=value are those of `hpcdata convert`, which explains them.
"""

import sys

from hpcdata.convert import main_of_sets

if __name__ == "__main__":
    sys.exit(main_of_sets("ov_data_imagenet2backbone", "OneVisionData", __doc__))
