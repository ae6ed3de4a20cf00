"""Places in the ids of a dataset, from which rows are copied: looked up once for the batches of many steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from hpcdata.dataset.parts import PartMaps
from hpcdata.native.arrays import Behind, as_signed, widen
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import Lazy
from hpcdata.native.recycled import empty
from hpcdata.native.threads import Later
from hpcdata.native.writers import PlaceRows

if TYPE_CHECKING:
    import torch

LITERAL = -1
"""`part` of a run that is no stored ids."""
_NOTHING = nullcontext()


class Places:
    """Runs of ids of a dataset."""

    def __init__(self, maps: PartMaps, part: np.ndarray, start: np.ndarray, length: np.ndarray) -> None:
        """part, start, length: [num_places]; `start` in the column of all ids; both are LITERAL for none."""
        self._maps, self._part, self.start, self._length = maps, part, start, length
        self.ids = maps.column("tokens/ids")
        """All ids: read where these places are `mapped`."""

    def place(
        self,
        out: np.ndarray,
        first: int = 0,
        *,
        rows: np.ndarray | None = None,
        shift: int = 0,
        pad: int = 0,
        later: Later | None = None,
    ) -> None:
        """Row `rows[n]` of `out` (by default n) = the ids of place `first` + n, plus `shift`, and `pad` behind them.

        out: [num_rows, width] of the dataset's dtype or int64; no row that is meant has more ids. With a `later`, it
        may be done then.
        """
        place, num_rows = self._place_rows, len(out if rows is None else rows)
        if place is None:
            self._place(out, first, rows, shift, pad)
            return
        if self.stay_mapped:
            place(out, first, num_rows, rows, shift, pad, later=later)
            return
        with self.mapped(slice(first, first + num_rows)):
            place(out, first, num_rows, rows, shift, pad)

    def mapped(self, these: slice) -> AbstractContextManager[None]:
        """Inside, the ids of these places are mapped."""
        if self.stay_mapped:
            return _NOTHING
        return self._maps.opened(_parts(self._part[these]))

    def copy(self, out: np.ndarray, first: int = 0) -> None:
        """out: [num_rows, width] of the dataset's dtype; row r becomes the window at place `first` + r.

        What stands behind the end of a run is somebody else's, or zeros: mask it.
        """
        if not out.size:
            return
        rows, ids = slice(first, first + len(out)), self._maps.ids_tensor
        with self._maps.opened(self._part[rows]):
            num_windows = len(ids) - out.shape[1] + 1
            if self._latest < num_windows:
                _gather(ids, self._where[rows], out)
            else:
                _gather_at_the_end(ids, self.start[rows], out)

    def _place(self, out: np.ndarray, first: int, rows: np.ndarray | None, shift: int, pad: int) -> None:
        """By whole windows, padded while they are narrow if they can be."""
        num_rows, width = len(out if rows is None else rows), self._longest
        is_direct = rows is None and not shift and out.dtype == self.ids.dtype
        windows = out[:, :width] if is_direct else empty((num_rows, width), self.ids.dtype)
        self.copy(windows, first)
        fits = 0 <= pad - shift <= np.iinfo(windows.dtype).max
        if fits:
            self._behind.fill(windows, pad - shift, first)
        if not is_direct:
            wide = out[:, :width] if rows is None else empty(windows.shape, out.dtype)
            widen(windows, wide, shift)
            if not fits:
                self._behind.fill(wide, pad, first)
            if rows is not None:
                out[rows, :width] = wide
        if rows is None:
            out[:, width:] = pad
        else:
            out[rows, width:] = pad

    @Lazy
    def _place_rows(self) -> PlaceRows | None:
        compiled = kernels()
        return None if compiled is None else compiled.place_rows(self.ids, self.start, self._length)

    @Lazy
    def stay_mapped(self) -> bool:
        """Whether these ids stay where they are from now on."""
        if self._maps.may_close:
            return False
        if not self._maps.are_all_open:
            with self._maps.opened(_parts(self._part)):
                pass
        return True

    @Lazy
    def _where(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.start)

    @Lazy
    def _latest(self) -> int:
        return int(self.start.max(initial=0))

    @Lazy
    def _longest(self) -> int:
        return int(self._length.max(initial=0))

    @Lazy
    def _behind(self) -> Behind:
        return Behind(self._length, self._longest)


def _parts(part: np.ndarray) -> np.ndarray:
    return part[part >= 0]


def _gather(ids: torch.Tensor, where: torch.Tensor, out: np.ndarray) -> None:
    """By one gather over an overlapping view."""
    import torch

    width = out.shape[1]
    windows = ids.as_strided((len(ids) - width + 1, width), (1, 1))
    torch.index_select(windows, 0, where, out=torch.from_numpy(as_signed(out)))


def _gather_at_the_end(ids: torch.Tensor, start: np.ndarray, out: np.ndarray) -> None:
    """The same where windows may reach over the end of the last part: at most a few of a batch, zeros behind it."""
    import torch

    is_late = start >= len(ids) - out.shape[1] + 1
    for row in np.flatnonzero(is_late).tolist():
        rest = ids[start[row] :].numpy().view(out.dtype)
        out[row, : len(rest)] = rest
        out[row, len(rest) :] = 0
    early = np.flatnonzero(~is_late)
    if early.size:
        found = np.empty((len(early), out.shape[1]), out.dtype)
        _gather(ids, torch.from_numpy(start[early]), found)
        out[early] = found
