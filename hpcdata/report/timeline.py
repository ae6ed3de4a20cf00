"""What happened over time, in equal parts of it: amounts are spread evenly over the seconds that made them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcdata.history.process import Segment

_CHUNK = 4096


def throughput(segments: Sequence[Segment], start: float, end: float, num_bins: int) -> np.ndarray:
    """[num_bins] float64: samples a second in equal parts of the time from `start` to `end`."""
    return spread([(item.start, item.end, item.samples) for item in segments], start, end, num_bins)


def busy(segments: Sequence[Segment], start: float, end: float, num_bins: int) -> np.ndarray:
    """[num_bins] float64: how many processes did useful work, on average over each part."""
    return spread([(item.start, item.end, item.end - item.start) for item in segments], start, end, num_bins)


def spread(items: Sequence[tuple[float, float, float]], start: float, end: float, num_bins: int) -> np.ndarray:
    """[num_bins] float64: amounts a second, from (start, end, amount)."""
    edges = np.linspace(start, end, num_bins + 1)
    done = np.zeros(num_bins + 1)
    for first in range(0, len(items), _CHUNK):
        begins, ends, amounts = np.array(items[first : first + _CHUNK], np.float64).T
        seconds = np.maximum(ends - begins, 1e-3)[:, None]
        done += amounts @ np.clip((edges - begins[:, None]) / seconds, 0, 1)
    return np.diff(done) / max((end - start) / num_bins, 1e-9)


def histogram(times: Sequence[float], start: float, end: float, num_bins: int) -> np.ndarray:
    """[num_bins] int64: how many of these moments lie in each part."""
    return np.histogram(np.array(times, np.float64), num_bins, (start, max(end, start + 1e-9)))[0]
