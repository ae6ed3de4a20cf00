"""What copies and writes ids: rows and runs whose addresses are looked up once, some of them at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from hpcdata.native.addresses import address_of, at, check, ids_at
from hpcdata.native.recycled import empty_at
from hpcdata.native.threads import Later, copy

_DERIVED = ("labels", "attention_mask", "modality", "loss_mask", "position_ids")
"""What `write_rows` makes of ids and runs, in the order of its arguments."""


class PlaceRows:
    """Copies some of its rows at a time: their addresses are looked up once."""

    def __init__(self, library: ctypes.CDLL, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> None:
        self._place, self._finish = library.place_rows, library.finish
        self._ids, self._arrays = ids_at(ids), (ids, start, length)
        self._start, self._length, self._num_rows = at(start, len(start)), at(length, len(start)), len(start)

    def __call__(
        self,
        out: np.ndarray,
        first: int,
        num_rows: int,
        rows: np.ndarray | None,
        shift: int,
        pad: int,
        *,
        later: Later | None = None,
    ) -> None:
        """out[rows[n]] (by default out[n]) = the ids of row `first` + n, plus `shift`, with `pad` behind them.

        out: [at least num_rows, width] of uint16, int32 or int64; its columns stand next to each other. With a `later`,
        it may be done then.
        """
        item_bytes, (row_bytes, column_bytes), (out_rows, width) = out.itemsize, out.strides, out.shape
        if (column_bytes != item_bytes and width > 1) or not 0 <= first <= first + num_rows <= self._num_rows:
            raise IndexError(
                f"rows {first} to {first + num_rows} of {self._num_rows}, columns {column_bytes} bytes apart"
            )
        places = (self._start + 8 * first, self._length + 8 * first, None if rows is None else at(rows, num_rows))
        shape = (address_of(out), item_bytes, out_rows, row_bytes // item_bytes, width)
        arguments = (*self._ids, *places, num_rows, *shape, shift, pad)
        check(copy(self._place, arguments, (self._arrays, out, rows), self._finish, later))


class WriteRows:
    """Writes the arrays of some of its rows: their addresses are looked up once."""

    def __init__(
        self,
        library: ctypes.CDLL,
        width: int,
        runs: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        source: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None,
        pad: int,
    ) -> None:
        assert runs is not None or source is not None
        self._write, self._finish, self._width, self._pad = library.write_rows, library.finish, width, pad
        self._given, self._ids = (runs, source), (None, 0, 0) if source is None else ids_at(source[0])
        _, start, taken = source or (None, None, None)
        first_run, length, kind = runs or (None, None, None)
        of_rows = len(start) if first_run is None else len(first_run) - 1  # type: ignore[arg-type]
        self._num_rows, self._num_runs = of_rows, 0 if length is None else len(length)
        self._of_rows = [
            None if column is None else at(column, size)
            for column, size in ((start, of_rows), (taken, of_rows), (first_run, of_rows + 1))
        ]
        self._runs = [None if column is None else at(column, self._num_runs) for column in (length, kind)]

    def make(
        self, first: int, stop: int, dtypes: Mapping[str, np.dtype], *, later: Later | None = None
    ) -> dict[str, np.ndarray]:
        """The arrays of rows `first` to `stop` - 1 that `dtypes` names (see below), input_ids among them.

        With a `later`, they may be there then.
        """
        self._check(first, stop)
        shape, arrays, addresses = (stop - first, self._width), {}, {}
        for key, dtype in dtypes.items():
            arrays[key], addresses[key] = empty_at(shape, dtype)
        self._write_at(first, stop - first, arrays, addresses, later)
        return arrays

    def __call__(self, first: int, arrays: Mapping[str, np.ndarray], *, later: Later | None = None) -> None:
        """The rows from `first` on. arrays: `input_ids` and those wanted of `labels`, `attention_mask`, `modality`,
        `loss_mask`, `position_ids`, each [num_rows, width]. Without a source, the ids are there.

        With a `later`, it may be done then.
        """
        ids = arrays["input_ids"]
        for array in arrays.values():
            if array.shape != (len(ids), self._width) or not array.flags.c_contiguous:
                raise IndexError(f"an array of {array.shape}, strides of {array.strides}, expected {ids.shape}")
        self._check(first, first + len(ids))
        self._write_at(first, len(ids), arrays, {key: address_of(array) for key, array in arrays.items()}, later)

    def _check(self, first: int, stop: int) -> None:
        if not 0 <= first <= stop <= self._num_rows:
            raise IndexError(f"rows {first} to {stop} of {self._num_rows}")

    def _write_at(
        self,
        first: int,
        num_rows: int,
        arrays: Mapping[str, np.ndarray],
        addresses: Mapping[str, int],
        later: Later | None,
    ) -> None:
        columns = [None if column is None else column + 8 * first for column in self._of_rows]
        positions = arrays.get("position_ids")
        arguments = (
            *(*self._ids, *columns, *self._runs, self._num_runs, num_rows, self._width),
            *(addresses["input_ids"], arrays["input_ids"].itemsize, self._pad),
            *map(addresses.get, _DERIVED),
            0 if positions is None else positions.itemsize,
        )
        check(copy(self._write, arguments, (self._given, arrays), self._finish, later))


class WriteRuns:
    """Writes some of its runs at a time: their addresses are looked up once. They stand at `dest`, in this order."""

    def __init__(
        self, library: ctypes.CDLL, name: str, source: tuple[np.ndarray, ...], columns: tuple[np.ndarray, ...]
    ) -> None:
        self._write, self._finish = getattr(library, name), library.finish
        self._arrays, self._num_runs = (source, columns), len(columns[0])
        self._source = [number for ids in source for number in ids_at(ids)]
        self._addresses = [at(column, self._num_runs) for column in columns]

    def __call__(
        self, out: np.ndarray, first: int, stop: int, base: int, pad: int = 0, *, later: Later | None = None
    ) -> None:
        """Runs `first` to `stop` - 1, at `dest` - `base` of the flat `out`, and `pad` between them.

        With a `later`, it may be done then.
        """
        if not (0 <= first <= stop <= self._num_runs and out.flags.c_contiguous):
            raise IndexError(f"runs {first} to {stop} of {self._num_runs}, into strides of {out.strides}")
        columns = [address + 8 * first for address in self._addresses]
        place = (stop - first, base, address_of(out), out.itemsize, out.size, pad)
        arguments = (*self._source, *columns, *place)
        check(copy(self._write, arguments, (self._arrays, out), self._finish, later))
