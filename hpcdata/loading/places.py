"""Places in the ids of a dataset, from which windows are copied: looked up once for the batches of many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcdata.loading.arrays import as_signed
from hpcdata.loading.parts import PartMaps

if TYPE_CHECKING:
    import torch


class Places:
    """Some ids of a dataset, each the first of a window."""

    def __init__(self, maps: PartMaps, part: np.ndarray, start: np.ndarray) -> None:
        """part, start: [num_places], as in a SpanTable."""
        import torch

        self._maps, self._part = maps, part
        self._start = start + maps.tokens[part]
        self._where = torch.from_numpy(self._start)
        self.dtype = maps.column("tokens/ids").dtype
        self._latest = int(self._start.max(initial=0))

    def copy(self, out: np.ndarray, first: int = 0) -> None:
        """out: [num_rows, width] of the dataset's dtype; row r becomes the window at place `first` + r.

        What stands behind the end of a span is somebody else's, or zeros: mask it.
        """
        if not out.size:
            return
        rows, ids = slice(first, first + len(out)), self._maps.ids_tensor
        with self._maps.opened(self._part[rows]):
            num_windows = len(ids) - out.shape[1] + 1
            if self._latest < num_windows:
                _gather(ids, self._where[rows], out)
            else:
                _gather_at_the_end(ids, self._start[rows], out)


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
