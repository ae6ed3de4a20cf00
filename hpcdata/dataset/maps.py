"""Read-only memory maps of column files that hold no file descriptor.

`mmap.mmap` and `np.memmap` keep a descriptor open for every map, so a dataset of a few hundred parts would run into
the usual limit of 1,024 open files. Here the file is closed at once and the array owns the mapping: it is unmapped
when the last view of it is gone. Maps survive fork; nothing about them is pickled.

`ColumnRange` puts the files of one column of all parts behind each other into one reserved range of addresses: they
are one array, and a gather over two thousand parts is the same single call as one over a single part. Nothing is
copied, and only the parts that were asked for are mapped; what is not reads as zeros. Where combine has joined a
column of many parts in one file, that is mapped at once.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcdata.base.errors import Failed

if TYPE_CHECKING:
    import torch

ALIGN = 4096
"""Parts begin at multiples of this many rows: whole pages for every dtype, the same rows in every column of a table."""
_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10
_SHARED = mmap.MAP_SHARED
_RESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


def map_column(path: str, dtype: str, shape: tuple[int, ...], *, may_grow: bool = False) -> np.ndarray:
    """The file as a read-only array. Raises UserError when it is missing or its size is not that of `shape`.

    `may_grow`: somebody appends to it; what `shape` says must be there.
    """
    element = np.dtype(dtype).newbyteorder("<")
    expected = element.itemsize * int(np.prod(shape, dtype=np.int64))
    if not expected:
        return np.zeros(shape, element)
    return np.asarray(_Mapping(map_file(path, expected, may_grow=may_grow), expected, element.str, shape))


def map_file(path: str, num_bytes: int, address: int | None = None, *, may_grow: bool = False) -> int:
    """The address of the file's pages, `address` where one is given. Raises UserError as `map_column` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Failed(f"{path} is missing: the part is damaged, restore it, or combine its run again") from None
    try:
        found = os.lseek(descriptor, 0, os.SEEK_END)
        if found < num_bytes or (found > num_bytes and not may_grow):
            raise Failed(
                f"{path} has {found} bytes, the manifest says {num_bytes}: "
                "the part is damaged, restore it, or combine its run again"
            )
        return _mmap(address, num_bytes, _SHARED if address is None else _SHARED | _MAP_FIXED, descriptor)
    finally:
        os.close(descriptor)


def unmap(address: int, num_bytes: int) -> None:
    """Gives a file of a `ColumnRange` back; its rows read as zeros from now on."""
    _mmap(address, num_bytes, _RESERVE | _MAP_FIXED, -1)


class ColumnRange:
    """One column of all parts as one read-only array.

    `bases` ([num_parts] int64) are the rows of the array at which the parts begin, `num_rows` their rows. `array` may
    be indexed at rows of mapped parts; no view of it may leave the caller, as a part can be unmapped again. `align`:
    the number of rows of which the beginnings of files are multiples.
    """

    def __init__(
        self,
        dtype: str,
        width: int,
        num_rows: np.ndarray,
        bases: np.ndarray,
        total: int,
        *,
        align: int = ALIGN,
    ) -> None:
        element = np.dtype(dtype).newbyteorder("<")
        self._row_bytes = element.itemsize * max(1, width)
        self._num_rows, self._bases, self._align = num_rows, bases, align
        num_bytes = total * self._row_bytes
        address = _mmap(None, num_bytes, _RESERVE, -1)
        self._address = address
        shape = (total, width) if width else (total,)
        self._owner = _Mapping(address, num_bytes, element.str, shape)
        self.array: np.ndarray = np.asarray(self._owner)

    def tensor(self) -> torch.Tensor:
        """The same memory for torch, 16-bit ids as int16, which has the operations that uint16 lacks. Never write."""
        import torch

        element = self.array.dtype.newbyteorder("=")
        kind = np.int16 if element == np.uint16 else element
        size = self.array.size * self.array.itemsize
        raw = (ctypes.c_char * size).from_address(self._address)
        tensor = torch.frombuffer(raw, dtype=getattr(torch, np.dtype(kind).name))
        return tensor.view(self.array.shape)

    def num_maps(self, parts: np.ndarray) -> int:
        """When all of these parts are mapped: the files, and what is left of the range behind each."""
        num_rows = self._num_rows[parts]
        num_bytes = num_rows * self._row_bytes
        gaps = -(-num_rows // self._align) * self._align * self._row_bytes - -(-num_bytes // _PAGE) * _PAGE
        return int(np.count_nonzero(num_bytes) + np.count_nonzero(gaps))

    def map_joined(self, path: str, first: int, stop: int) -> None:
        """Maps the file that holds the rows of parts `first` to `stop` - 1 end to end. Raises UserError."""
        num_bytes = int(self._num_rows[first:stop].sum()) * self._row_bytes
        if num_bytes:
            map_file(path, num_bytes, self._address + int(self._bases[first]) * self._row_bytes)

    def places(self, parts: np.ndarray) -> list[tuple[int, int]]:
        """(address, bytes) of each of these parts, for `map_file` and `unmap`."""
        addresses = self._address + self._bases[parts] * self._row_bytes
        return list(zip(addresses.tolist(), (self._num_rows[parts] * self._row_bytes).tolist(), strict=True))

    def put(self, row: int, values: np.ndarray) -> None:
        """Writes `values` ([n]) at `row`, where no file lies: behind the rows of all parts."""
        data = np.ascontiguousarray(values, self.array.dtype)
        address = self._address + row * self._row_bytes
        page = address & -_PAGE
        if _libc.mprotect(page, address + data.nbytes - page, mmap.PROT_READ | mmap.PROT_WRITE):
            raise OSError(ctypes.get_errno(), "mprotect of memory of our own")
        ctypes.memmove(address, data.ctypes.data, data.nbytes)

    def advise(self, first: int, last: int, advice: int) -> None:
        """madvise for all from one part to another; what the kernel makes of it is no error."""
        (start, _), (end, num_bytes) = self.places(np.array([first, last]))
        _libc.madvise(start, end + num_bytes - start, advice)

    def spans_of(self, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """[n, 2] uint64: address and bytes of `length` rows from row `start`, for `will_need`."""
        ranges = np.empty((len(start), 2), np.uint64)
        ranges[:, 0] = self._address + start * self._row_bytes
        ranges[:, 1] = length * self._row_bytes
        return ranges


def aligned_bases(num_rows: Sequence[int] | np.ndarray, align: int = ALIGN) -> tuple[np.ndarray, int]:
    """Where parts of these rows begin in a `ColumnRange`, and how many rows it has altogether."""
    ends = np.cumsum(-(-np.asarray(num_rows, np.int64) // align) * align)
    total = int(ends[-1]) if len(ends) else 0
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), max(total, align)


def page_rows(dtype: str) -> int:
    """Rows of a page: parts of a column that begin at multiples of it have no gap between their maps."""
    return _PAGE // np.dtype(dtype).itemsize


def _mmap(address: int | None, num_bytes: int, flags: int, descriptor: int) -> int:
    found = _libc.mmap(address, num_bytes, mmap.PROT_READ, flags, descriptor, 0)
    if found == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap of {num_bytes} bytes: {os.strerror(number)}")
    return int(found)


class _Mapping:
    """Owns a range of addresses; numpy keeps it alive as the base of the array made from it."""

    def __init__(self, address: int, num_bytes: int, typestr: str, shape: tuple[int, ...]) -> None:
        self._address, self._num_bytes = address, num_bytes
        self.__array_interface__ = {"data": (address, True), "shape": shape, "typestr": typestr, "version": 3}

    def __del__(self, munmap: Callable[[int, int], int] = _libc.munmap) -> None:  # module names may be gone by then
        munmap(self._address, self._num_bytes)
