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
from typing import NamedTuple, Protocol

import numpy as np

from hpcdata.native.addresses import at, check
from hpcdata.native.recycled import empty
from hpcdata.native.structs import BINS, LINEUP, TILES, Values
from hpcdata.native.threads import num_threads
from hpcdata.native.writers import PlaceRows, WriteRows, WriteRuns

VERSION = 9
"""Of the functions in kernels.c: a library that was built from an older one is not used."""
_ARGUMENTS = {
    "place_rows": "pnnpppnpnnnnnnnn",
    "place_runs": "pnnppppnnpnnnnn",
    "write_rows": "pnnpppppnnnpnnpppppnnn",
    "fill_runs": "pppnnpnnnnn",
    "count_runs": "pppnnpnnnnn",
    "finish": "n",
    "set_min_bytes_each": "n",
    "tile": "ppp",
    "num_spans_of": "ppnnppppn",
    "find_spans": "ppnppppnppppppn",
    "permute": "pnnnpnpn",
    "permute_each": "ppnpppnnpn",
    "interleave": "pnpppnnppn",
    "best_fit": "pnnnppp",
    "resample": "pppppppppp",
    "kernels_version": "",
}
"""Of each function: pointers and numbers."""
_LOOKED_UP = (
    *(f"samples/{name}" for name in ("index", "num_spans", "first_span", "first_token")),
    *("spans/length", "spans/kind"),
)
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64}
NUM_COUNTS, NUM_RUN_COLUMNS = 7, 10
_log = logging.getLogger(__name__)


def built(name: str) -> Path | None:
    """A library that was built with this installation; None where it was not, or is not wanted."""
    if os.environ.get("HPCDATA_KERNELS") == "0":
        return None
    paths = [Path(__file__).with_name(name + suffix) for suffix in EXTENSION_SUFFIXES]
    return next((path for path in paths if path.exists()), None)


@cache
def kernels() -> Kernels | None:
    """The compiled loops; None when they were not built, or are not wanted."""
    path = built("_kernels")
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

    def set_min_bytes_each(self, num_bytes: int) -> int:
        """From how many bytes for each threads share a copy or lookup: 256 KiB, but in tests. Returns what it was."""
        return self._library.set_min_bytes_each(max(1, num_bytes))

    def place_rows(self, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> PlaceRows:
        """What copies rows of `length` ids from `start` ([n] each)."""
        return PlaceRows(self._library, ids, start, length)

    def place_runs(
        self, ids: np.ndarray, start: np.ndarray, value: np.ndarray, dest: np.ndarray, length: np.ndarray
    ) -> WriteRuns:
        """What writes ids from `start` plus `value`, or `value` alone where `start` is negative."""
        return WriteRuns(self._library, "place_runs", (ids,), (start, value, dest, length))

    def write_rows(
        self,
        width: int,
        runs: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        source: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
        *,
        pad: int = 0,
    ) -> WriteRows:
        """What writes all arrays of rows of `width` columns at once.

        runs: (first_run, length, kind), None for ids alone. Row n has the runs from first_run[n] up to first_run[n + 1]
        ([rows + 1] int64). length, kind: [runs] int64; bits of `kind` are those of `hpcdata.dataset.baked.record`.
        source: all ids, where those of each row begin, and how many it has before `pad` (None: all; [rows] int64).
        """
        return WriteRows(self._library, width, runs, source, pad)

    def fill_runs(self, value: np.ndarray, dest: np.ndarray, length: np.ndarray) -> WriteRuns:
        """What writes one `value` on each run."""
        return WriteRuns(self._library, "fill_runs", (), (value, dest, length))

    def count_runs(self, first: np.ndarray, dest: np.ndarray, length: np.ndarray) -> WriteRuns:
        """What writes `first`, `first` + 1... on each run."""
        return WriteRuns(self._library, "count_runs", (), (first, dest, length))

    def tile(self, lineup: Values, bins: Values, *, room: int) -> Tiles:
        """Where the runs of bins stand, and where their ids come from: `room` for as many runs at most.

        lineup, bins: the fields of these structs in kernels.c, but `first_span`.
        """
        num_samples, first_row = lineup["num_samples"], bins["first_row"]
        assert isinstance(num_samples, int)
        assert isinstance(first_row, np.ndarray)
        num_rows, num_bins = int(first_row[-1]), len(first_row) - 1
        num_edges = num_rows + num_bins
        runs, edges = empty((NUM_RUN_COLUMNS * room,), np.int64), empty((3 * num_edges,), np.int64)
        firsts, counted = np.empty((2, num_bins + 1), np.int64), empty(((num_bins + 1) * NUM_COUNTS,), np.int64)
        first_span = np.empty(num_samples + 1, np.int64)  # theirs to fill in
        lined_up = LINEUP.fill({**lineup, "first_span": first_span}, num_edges=num_samples + 1)
        of_bins = BINS.fill({**bins, "num_bins": num_bins}, num_rows=num_rows, num_edges=num_bins + 1)
        places: dict[str, int | np.ndarray | None] = {
            "room": room,
            "num_edges": num_edges,
            "runs": runs,
            "edges": edges,
            "counted": counted,
        }
        places |= {"first_kept": firsts[0], "first_edge": firsts[1]}
        sizes = {"all_runs": runs.size, "all_edges": edges.size, "all_counts": counted.size}
        out = TILES.fill(places, num_bin_edges=num_bins + 1, **sizes)
        check(self._library.tile(ctypes.byref(lined_up), ctypes.byref(of_bins), ctypes.byref(out)))
        first_run, first_edge = firsts.tolist()
        return Tiles(
            runs.reshape(NUM_RUN_COLUMNS, room)[:, : first_run[-1]],
            first_run,
            edges.reshape(3, num_edges)[:, : first_edge[-1]],
            first_edge,
            counted.reshape(num_bins + 1, NUM_COUNTS),
        )

    def find_spans(self, sample: np.ndarray, part: np.ndarray, maps: PartColumns) -> tuple[np.ndarray, np.ndarray]:
        """What the samples at rows `sample` of the columns, in parts `part` ([n] each), consist of.

        Returns ([n], their index) and [6, num_spans]: row of `sample`, kind, length, part, first token, and row of the
        columns of spans.
        """
        addresses, num_parts, num_rows, threads = maps.addresses, len(maps.spans), len(sample), num_threads()
        num_samples, num_in_column = (len(maps.columns[name]) for name in ("samples/index", "spans/length"))
        index, num_spans, first_span, first_token, length, kind = (addresses[name] for name in _LOOKED_UP)
        rows = (at(sample, num_rows), at(part, num_rows), num_rows)
        spans_of_part, tokens_of_part = (at(num, num_parts) for num in (maps.num_spans, maps.num_tokens))
        found, indices = np.empty(num_rows + 1, np.int64), np.empty(num_rows, np.int64)
        found_at = found.ctypes.data
        of_parts = (num_samples, num_spans, first_span, spans_of_part)
        total = self._library.num_spans_of(*rows, *of_parts, found_at, threads)
        check(total)
        spans = empty((6, total), np.int64)
        of_samples = (index, first_span, first_token, at(maps.spans, num_parts), num_in_column, tokens_of_part)
        out = (found_at, indices.ctypes.data, spans.ctypes.data)
        check(self._library.find_spans(*rows, *of_samples, length, kind, *out, threads))
        return indices, spans

    def permute(self, positions: np.ndarray, num_samples: int, num_bits: int, keys: np.ndarray) -> np.ndarray:
        """rows: [n] int64, of the positions ([n] int64), by the round keys ([num_rounds] uint64)."""
        rows = np.empty_like(positions)
        sizes = (len(positions), num_samples, num_bits)
        network = (at(keys, len(keys), np.uint64), len(keys))
        check(self._library.permute(at(positions, len(rows)), *sizes, *network, rows.ctypes.data, num_threads()))
        return rows

    def permute_each(
        self, positions: np.ndarray, which: np.ndarray, num_samples: np.ndarray, num_bits: np.ndarray, keys: np.ndarray
    ) -> np.ndarray:
        """The same by several permutations, `which` ([n]) of them: sizes and bits are [m], keys [m, rounds]."""
        rows, (number, num_rounds) = np.empty_like(positions), keys.shape
        given = (at(positions, len(rows)), at(which, len(rows)), len(rows))
        sizes = (at(num_samples, number), at(num_bits, number), at(keys.reshape(-1), keys.size, np.uint64))
        check(self._library.permute_each(*given, *sizes, number, num_rounds, rows.ctypes.data, num_threads()))
        return rows

    def interleave(
        self, positions: np.ndarray, left: np.ndarray, total: np.ndarray, branches: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(source, draw) of positions ([n] each), by a tree whose root is the last of its nodes: left, total: [m],
        branches: [m, 2], nodes before it or -1 - source.
        """
        source, draw, number = np.empty_like(positions), np.empty_like(positions), len(left)
        tree = (at(left, number), at(total, number), at(branches.reshape(-1), 2 * number), number, number - 1)
        out = (source.ctypes.data, draw.ctypes.data, num_threads())
        check(self._library.interleave(at(positions, len(source)), len(source), *tree, *out))
        return source, draw

    def best_fit(self, lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
        """(sample, first_row) of best fit bins: see hpcdata.order.packing. lengths: [num_samples] int64."""
        num_samples = len(lengths)
        sample, first_row = np.empty(num_samples, np.int64), np.empty(num_samples + 1, np.int64)
        longest = int(lengths.max(initial=0))
        scratch = empty((9 * num_samples + 3 * (longest + 2),), np.int64)
        out = (sample.ctypes.data, first_row.ctypes.data, scratch.ctypes.data)
        num_bins = self._library.best_fit(at(lengths, num_samples), num_samples, longest, capacity, *out)
        check(num_bins)
        first_row = first_row[: num_bins + 1]
        return sample[: first_row[-1]], first_row

    def resample(
        self,
        image: np.ndarray,
        rows: tuple[np.ndarray, np.ndarray],
        columns: tuple[np.ndarray, np.ndarray],
        affine: tuple[np.ndarray, np.ndarray] | None,
        out: np.ndarray,
        *,
        rounded: bool,
    ) -> None:
        """See hpcdata.multimodal.pictures.resampling. image: [H, W, 3] uint8; rows, columns: start [n] int64 and weight
        [n, taps] float32; affine: scale and shift, [3] float32 each, for floats; out: [num_rows, num_columns, 3]
        float32 or, without these, uint8, whose rows may be apart.
        """
        height, width, channels = image.shape
        dtype = np.dtype(np.uint8 if affine is None else np.float32)
        item_bytes = dtype.itemsize
        side_by_side = (channels * item_bytes, item_bytes)
        if channels != 3 or out.shape[2] != 3 or out.dtype != dtype or out.strides[1:] != side_by_side:
            raise TypeError(f"expected 3 channels side by side, got {image.shape} and {out.shape} {out.dtype}")
        taps = (rows[1].shape[1], columns[1].shape[1])
        sizes = np.array([height, width, *out.shape[:2], *taps, out.strides[0] // item_bytes, rounded], np.int64)
        scratch = np.empty(channels * width + 1, np.float32)
        weights = [
            (at(start, number), at(weight.reshape(-1), number * weight.shape[1], np.float32))
            for (start, weight), number in zip((rows, columns), out.shape, strict=False)
        ]
        scaled = (None, None) if affine is None else [at(part, channels, np.float32) for part in affine]
        given = (at(image.reshape(-1), image.size, np.uint8), sizes.ctypes.data, *weights[0], *weights[1], *scaled)
        check(self._library.resample(*given, out.ctypes.data, scratch.ctypes.data))


class Tiles(NamedTuple):
    """Where the runs of bins stand: those with ids; the room between them is padding.

    `start` is a place in the column of all ids; LITERAL, as is `part`, for a `value` that is repeated.
    """

    runs: np.ndarray
    """[NUM_RUN_COLUMNS, num_runs], bin after bin: bin, column, length, part, start, value (or what is added to ids),
    is_image, is_trained, position (ids before it in its row), segment (row of its bin, from 1).
    """
    first_run: list[int]
    """[num_bins + 1]"""
    edges: np.ndarray
    """[3, num_edges]: bin, column and length of segments: rows, and the padding behind them."""
    first_edge: list[int]
    counted: np.ndarray
    """[num_bins + 1, NUM_COUNTS]: what BatchCounts has, of the bins before each, skipped samples among the others."""


class PartColumns(Protocol):
    """The columns of all parts of a dataset, each over one address range."""

    num_tokens: np.ndarray
    num_spans: np.ndarray
    spans: np.ndarray
    """[num_parts] int64 each: tokens and spans of a part, and the row at which its spans begin."""

    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...

    @property
    def addresses(self) -> Mapping[str, int]: ...
