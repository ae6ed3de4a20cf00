"""Combine under the name that UniDisc's users know: `python jobs/combine_token_dicts.py RUN --move_files ...`."""

import sys

from hpcdata.combine import main

if __name__ == "__main__":
    sys.exit(main())
