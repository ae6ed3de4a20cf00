"""Throughput over time, from what the ledgers say: samples are spread evenly over the seconds that made them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcdata.history import Segment

_CHUNK = 4096


def throughput(segments: Sequence[Segment], start: float, end: float, num_bins: int) -> np.ndarray:
    """[num_bins] float64: samples a second in equal parts of the time from `start` to `end`."""
    edges = np.linspace(start, end, num_bins + 1)
    done = np.zeros(num_bins + 1)
    for first in range(0, len(segments), _CHUNK):
        items = segments[first : first + _CHUNK]
        begins = np.array([item.start for item in items])[:, None]
        seconds = np.maximum(np.array([item.end for item in items])[:, None] - begins, 1e-3)
        samples = np.array([item.samples for item in items], np.float64)
        done += samples @ np.clip((edges - begins) / seconds, 0, 1)
    return np.diff(done) / max((end - start) / num_bins, 1e-9)
