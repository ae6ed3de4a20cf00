"""Download by the name that Molmo's users know: `python jobs/download_data.py all --n_proc 12`."""

import sys

from hpcdata.download import main

if __name__ == "__main__":
    sys.exit(main())
