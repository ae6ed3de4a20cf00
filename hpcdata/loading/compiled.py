"""The inner loops of kernels.c, where this installation has them: `kernels()` is None where it has not.

They are built when hpcdata is installed on a machine with a C compiler, and change nothing but speed: without them, or
with HPCDATA_KERNELS=0, NumPy and torch do the same. Calls leave the interpreter's lock, so threads copy at once.

Nothing is touched when a place is outside of its array: that is an IndexError, as it is in NumPy.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

VERSION = 1
"""Of the functions in kernels.c: a library that was built from an older one is not used."""
_ARGUMENTS = {
    "place_rows": "pnnpppnpnnnnnn",
    "place_runs": "pnnppppnpnnn",
    "fill_runs": "pppnpnnn",
    "count_runs": "pppnpnnn",
    "num_spans_of": "pnnp",
    "find_spans": "ppnpppppnppppn",
    "permute": "pnnnpnp",
    "best_fit": "pnpppnp",
    "kernels_version": "",
}
"""Of each function: pointers and numbers."""
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64}
_log = logging.getLogger(__name__)


@cache
def kernels() -> Kernels | None:
    """The compiled loops; None when they were not built, or are not wanted."""
    if os.environ.get("HPCDATA_KERNELS") == "0":
        return None
    built = [Path(__file__).with_name("_kernels" + suffix) for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in built if path.exists()), None)
    try:
        return None if path is None else Kernels(path)
    except (OSError, AttributeError, ImportError) as error:  # built elsewhere, or from another version
        _log.warning("the compiled loops of the loader are not used, install hpcdata again: %s", error)
        return None


class Kernels:
    """See kernels.c. Places and lengths are contiguous int64 arrays; ids are uint16 or int32, in their whole column."""

    def __init__(self, path: Path) -> None:
        self._library = library = ctypes.CDLL(str(path))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = [_TYPES[kind] for kind in arguments], ctypes.c_int64
        if library.kernels_version() != VERSION:
            raise ImportError(f"{path.name} has version {library.kernels_version()}, expected {VERSION}")

    def place_rows(
        self,
        ids: np.ndarray,
        start: np.ndarray,
        length: np.ndarray,
        out: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        shift: int = 0,
        pad: int = 0,
    ) -> None:
        """out[rows[n]] (by default out[n]) = `length[n]` ids from `start[n]`, plus `shift`, with `pad` behind them.

        out: [num_rows, width] of uint16, int32 or int64; its columns stand next to each other.
        """
        if not out.size:
            return
        assert out.strides[1] == out.itemsize
        stride = out.strides[0] // out.itemsize
        where = None if rows is None else _at(rows, len(start))
        shape = (len(start), out.ctypes.data, out.itemsize, len(out), stride, out.shape[1])
        places = (_at(start, len(start)), _at(length, len(start)), where)
        _check(self._library.place_rows(*_ids(ids), *places, *shape, shift, pad))

    def place_runs(
        self,
        ids: np.ndarray,
        start: np.ndarray,
        value: np.ndarray,
        dest: np.ndarray,
        length: np.ndarray,
        out: np.ndarray,
        *,
        pad: int = 0,
    ) -> None:
        """Runs of the flat `out`, in its order: ids from `start` plus `value`, or `value` alone if `start` is negative.

        Between them goes `pad`.
        """
        runs = (_at(start, len(dest)), _at(value, len(dest)), _at(dest, len(dest)), _at(length, len(dest)), len(dest))
        _check(self._library.place_runs(*_ids(ids), *runs, *_out(out), pad))

    def fill_runs(
        self, value: np.ndarray, dest: np.ndarray, length: np.ndarray, out: np.ndarray, *, pad: int = 0
    ) -> None:
        """Runs of the flat `out`, in its order: `value` on each, `pad` between them."""
        runs = (_at(value, len(dest)), _at(dest, len(dest)), _at(length, len(dest)), len(dest))
        _check(self._library.fill_runs(*runs, *_out(out), pad))

    def count_runs(
        self, first: np.ndarray, dest: np.ndarray, length: np.ndarray, out: np.ndarray, *, pad: int = 0
    ) -> None:
        """Runs of the flat `out`, in its order: `first`, `first` + 1... on each, `pad` between them."""
        runs = (_at(first, len(dest)), _at(dest, len(dest)), _at(length, len(dest)), len(dest))
        _check(self._library.count_runs(*runs, *_out(out), pad))

    def find_spans(
        self, sample: np.ndarray, part: np.ndarray, base: np.ndarray, columns: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the samples at rows `sample` of the columns, in parts `part` ([n] each), consist of.

        base: [num_parts], where the spans of each begin. Returns ([n], their index) and [6, num_spans]: row of
        `sample`, kind, length, part, first token, and row of the columns of spans.
        """
        index, num_spans = columns["samples/index"], columns["samples/num_spans"]
        num_rows, length = len(sample), columns["spans/length"]
        rows = (_at(sample, num_rows), _at(part, num_rows), num_rows)
        total = self._library.num_spans_of(rows[0], num_rows, len(index), num_spans.ctypes.data)
        _check(total)
        found, spans = np.empty(num_rows, np.int64), np.empty((6, total), np.int64)
        of_samples = [columns[f"samples/{name}"].ctypes.data for name in ("num_spans", "first_span", "first_token")]
        of_spans = (_at(base, len(base)), len(length), length.ctypes.data, columns["spans/kind"].ctypes.data)
        out = (found.ctypes.data, spans.ctypes.data, total)
        _check(self._library.find_spans(*rows, index.ctypes.data, *of_samples, *of_spans, *out))
        return found, spans

    def permute(self, positions: np.ndarray, num_samples: int, num_bits: int, keys: np.ndarray) -> np.ndarray:
        """rows: [n] int64, of the positions ([n] int64), by the round keys ([num_rounds] uint64)."""
        rows = np.empty_like(positions)
        sizes = (len(positions), num_samples, num_bits)
        network = (_at(keys, len(keys), np.uint64), len(keys))
        _check(self._library.permute(_at(positions, len(rows)), *sizes, *network, rows.ctypes.data))
        return rows

    def best_fit(self, count: np.ndarray, capacity: int) -> np.ndarray:
        """[n, 4] int64: a length, how many of it in a bin, the first bin, how many bins are alike.

        count: [longest + 1], how many samples there are of each length; none of length 0.
        """
        values, left = np.flatnonzero(count), count.astype(np.int64)
        taken, content = np.zeros(capacity + 1, np.int64), np.empty(len(values) + 2, np.int64)
        used = np.empty((int(left.sum()), 4), np.int64)
        arrays = (values.ctypes.data, len(values), *(array.ctypes.data for array in (left, taken, content)))
        num_used = self._library.best_fit(*arrays, capacity, used.ctypes.data)
        _check(num_used)
        return used[:num_used]


def _at(array: np.ndarray, size: int, dtype: type = np.int64) -> int:
    assert array.dtype == dtype
    assert array.shape == (size,)
    assert array.flags.c_contiguous
    return array.ctypes.data


def _ids(ids: np.ndarray) -> tuple[int, int, int]:
    return ids.ctypes.data, len(ids), ids.itemsize


def _out(out: np.ndarray) -> tuple[int, int, int]:
    assert out.flags.c_contiguous
    return out.ctypes.data, out.itemsize, out.size


def _check(answer: int) -> None:
    if answer < 0:
        raise IndexError("a sample points outside of its part, or a batch is too small: the dataset is damaged")
