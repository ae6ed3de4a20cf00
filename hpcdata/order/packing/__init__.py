"""Which samples share a row: pure functions of the lengths of one window of the canonical order.

    BestFit(length=4096)                  whole samples, best-fit-decreasing: rows nearly full, nothing cut
    BestFit(length=4096, max_images=8)    the same with two budgets: no row has more images
    BestFit(length=4096, balance="squares")  and ranks get rows that cost about the same to train on
    Concat(length=4096)                   documents end to end, cut where a row ends: language data
    Buckets(multiple=128)                 one sample a row, batches of samples of about one length and one image grid

A bin of a batch is never empty. What does not fill a batch at the end of an epoch: see hpcdata.order.window_steps.

`balance` chooses which rank gets which rows of a step: see `pieces`. A step has the same rows without it.

A window is a fixed number of consecutive samples. Its rows depend on nothing else (with Buckets: and on how many
samples of each grid wait), so any window can be computed alone: that is what makes packing exact after a restart, and
equal on every rank.

May use what its room uses.

    base        what every packing is asked for, and how its options are checked
    best_fit    which samples fill a row best, with one budget or two
    rows        rows of a fixed length: BestFit, Concat
    buckets     batches of one image grid and about one length: Buckets
    named       a packing by its name
    pieces      the bins of a step, and which of them a rank gets
"""

from hpcdata.order.packing.base import Packing
from hpcdata.order.packing.buckets import Buckets
from hpcdata.order.packing.named import find_packing
from hpcdata.order.packing.rows import BestFit, Concat

__all__ = ["BestFit", "Buckets", "Concat", "Packing", "find_packing"]
