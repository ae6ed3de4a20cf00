"""What the kernel is told about reads to come: nothing is read here, pages are only asked for.

A shuffled epoch reads a kilobyte here and there. Left alone, the kernel reads 128 KiB around each, so files are
mapped with MADV_RANDOM (`PartMaps.advise`); then every miss waits for one small read. `will_need` asks for the ids of
many samples in one system call (process_madvise with MADV_WILLNEED, Linux 5.10), so that the device works on all of
them at once. On kernels without it, it does nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource

import numpy as np

MADV_NORMAL, MADV_RANDOM, MADV_WILLNEED = 0, 1, 3
_PROCESS_MADVISE = 440  # the same number on all architectures
_MAX_RANGES = 1024
_JOIN_BYTES = 2**15
"""Gaps up to this are read as well: in block order, whole blocks then are read from one end to the other."""
_PIECE_BYTES = 2**17
"""The kernel reads no more than its read-ahead size of one range."""
_RANGES_A_FAULT = 64
"""A process waits for pages of other files, too: one fault for so many ranges is no reason to ask."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class ReadAhead:
    """Says when to ask for pages: only while the process waits for the disk, as a dataset in RAM costs nothing."""

    _KEEP = 64
    """Requests after which it is found out anew whether they are needed."""

    def __init__(self) -> None:
        self._faults = _major_faults()
        self._left = 0

    def is_wanted(self, num_ranges: int) -> bool:
        """Whether to ask for so many ranges now."""
        faults = _major_faults()
        if faults > self._faults + num_ranges // _RANGES_A_FAULT:
            self._left = self._KEEP
        self._faults = faults
        if not self._left:
            return False
        self._left -= 1
        return True


def will_need(ranges: np.ndarray) -> bool:
    """Begins to read what is not in memory of `ranges` ([n, 2] uint64: address, bytes); False where it cannot."""
    if platform.system() != "Linux" or not len(ranges):
        return False
    pages = _pieces(ranges)
    descriptor = os.pidfd_open(os.getpid())
    try:
        for first in range(0, len(pages), _MAX_RANGES):
            some = pages[first : first + _MAX_RANGES]
            done = _libc.syscall(
                ctypes.c_long(_PROCESS_MADVISE),
                ctypes.c_int(descriptor),
                ctypes.c_void_p(some.ctypes.data),
                ctypes.c_size_t(len(some)),
                ctypes.c_int(MADV_WILLNEED),
                ctypes.c_uint(0),
            )
            if done < 0:
                return False
    finally:
        os.close(descriptor)
    return True


def _pieces(ranges: np.ndarray) -> np.ndarray:
    """The same bytes in order, as ranges of whole pages: neighbours joined, then cut into what the kernel takes."""
    start = np.sort(ranges[:, 0]).astype(np.int64)
    size = ranges[np.argsort(ranges[:, 0], kind="stable"), 1].astype(np.int64)
    end = np.maximum.accumulate(start + size)
    first = np.flatnonzero(np.concatenate([[True], start[1:] > end[:-1] + _JOIN_BYTES]))
    begin = start[first] & -4096
    length = end[np.concatenate([first[1:], [len(start)]]) - 1] - begin
    num_pieces = -(-length // _PIECE_BYTES)
    range_of = np.repeat(np.arange(len(begin)), num_pieces)
    done = (np.arange(len(range_of)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)) * _PIECE_BYTES
    pieces = np.empty((len(range_of), 2), np.uint64)
    pieces[:, 0] = begin[range_of] + done
    pieces[:, 1] = np.minimum(_PIECE_BYTES, length[range_of] - done)
    return pieces


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
