"""Verify-datasets by the name that Molmo's guide has: `python jobs/verify_datasets.py`."""

import sys

from hpcdata.verify_datasets import main

if __name__ == "__main__":
    sys.exit(main())
