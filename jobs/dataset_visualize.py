"""Visualize by the name that Molmo's users know: `python jobs/dataset_visualize.py pixmo_cap ./viz --split=train`."""

import sys

from hpcdata.visualize import main

if __name__ == "__main__":
    sys.exit(main())
