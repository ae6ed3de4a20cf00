"""Runs -> arrays by the compiled loops: where every run of a window stands is found once, for all batches of it."""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import NamedTuple

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.id_rows import LITERAL, Places
from hpcdata.loading.layouts.sequences import Lineup
from hpcdata.native.arrays import IGNORED_LABEL, position_dtype, totals_before
from hpcdata.native.compiled import Kernels, Tiles
from hpcdata.native.forks import Lazy
from hpcdata.native.recycled import empty
from hpcdata.native.structs import Values
from hpcdata.native.threads import Later
from hpcdata.native.writers import WriteRuns
from hpcdata.order.bins import Bins


class Tiled:
    """What makes the arrays of batches of some of the bins, equal to those of `assembly_numpy`. Runs: see `Tiles`."""

    def __init__(
        self,
        dataset: TokenDataset,
        lineup: Lineup,
        bins: Bins,
        compiled: Kernels,
        *,
        pad: int,
        id_dtype: str,
        is_packed: bool,
    ) -> None:
        """`is_packed`: the first id of a sample has no label, as another one's last would be asked for it."""
        self.compiled, self.pad, self.id_dtype = compiled, pad, id_dtype
        self.bins = bins
        tiles = tile(compiled, lineup, bins, dataset.maps.tokens)
        runs, self.first_run, self.edges, self.first_edge, self.counted = tiles
        if is_packed:
            runs, self.first_run = _without_first_labels(runs, self.first_run)
        self.bin, self.column, self.length, part, start, self.value, *others = runs
        self.is_image, self.is_trained, self.position, self.segment = others
        self.places = Places(dataset.maps, part, start, self.length)
        self._flat: _Flat | None = None

    def flat(self, width: int) -> _Flat:
        flat = self._flat
        if flat is None or flat.width != width:
            flat = self._flat = _Flat(self, width)
        return flat

    @Lazy
    def num_filled(self) -> list[int]:
        """Bins with rows before each."""
        return totals_before(np.diff(self.bins.first_row) > 0).tolist()

    @Lazy
    def all_are_filled(self) -> bool:
        """Whether all bins have rows."""
        first_row = self.bins.first_row
        return bool((first_row[1:] > first_row[:-1]).all())


class _Flat:
    """The runs of a window in bins of one width that stand end to end."""

    def __init__(self, window: Tiled, width: int) -> None:
        self.window, self.width = window, width
        self._dest = window.bin * width + window.column

    @Lazy
    def ids(self) -> WriteRuns:
        return self._place(self.window.places.start, self.window.value)

    @Lazy
    def labels(self) -> WriteRuns:
        window = self.window
        is_trained = window.is_trained > 0
        start = np.where(is_trained, window.places.start, LITERAL)
        return self._place(start, np.where(is_trained, window.value, IGNORED_LABEL))

    @Lazy
    def valid(self) -> WriteRuns:
        return self._fill(np.ones_like(self._dest))

    @Lazy
    def loss_mask(self) -> WriteRuns:
        return self._fill(self.window.is_trained)

    @Lazy
    def modality(self) -> WriteRuns:
        return self._fill(self.window.is_image)

    @Lazy
    def segments(self) -> WriteRuns:
        return self._fill(self.window.segment)

    @Lazy
    def positions(self) -> WriteRuns:
        window = self.window
        return window.compiled.count_runs(window.position, self._dest, window.length)

    @Lazy
    def edges(self) -> np.ndarray:
        """Where segments begin: rows, and the padding behind them. Bins without rows have none. The end stands last."""
        at, column, _ = self.window.edges
        return np.append(at * self.width + column, self.window.bins.num_bins * self.width)

    def write(self, name: str, out: np.ndarray, first: int, stop: int, pad: int, later: Later | None) -> None:
        """Bins `first` to `stop` - 1 into the rows of `out`; `pad` where there is nothing."""
        first_run, places = self.window.first_run, self.window.places
        write: WriteRuns = getattr(self, name)
        runs = first_run[first], first_run[stop]
        if places.stay_mapped:
            write(out, *runs, first * self.width, pad, later=later)
            return
        with places.mapped(slice(*runs)):
            write(out, *runs, first * self.width, pad)

    def _place(self, start: np.ndarray, value: np.ndarray) -> WriteRuns:
        window = self.window
        return window.compiled.place_runs(window.places.ids, start, value, self._dest, window.length)

    def _fill(self, value: np.ndarray) -> WriteRuns:
        return self.window.compiled.fill_runs(value, self._dest, self.window.length)


class _Piece(NamedTuple):
    """Some bins of a window, and which rows of the batch they are."""

    flat: _Flat
    first: int
    stop: int
    rows: slice


class TiledBatch:
    """The arrays of some bins."""

    def __init__(self, pieces: Several[tuple[Tiled, int, int]], num_bins: int, width: int, later: Later | None) -> None:
        """(window, first bin, last bin + 1) of each piece; empty bins behind them make it `num_bins` of `width`.

        With a `later`, the array that was asked for last may be there then: none is looked at here.
        """
        self._shape, self._pieces, self._later, at = (num_bins, width), [], later, 0
        self._window = pieces[0][0]
        for place, (window, first, stop) in enumerate(pieces):
            end = at + stop - first if place < len(pieces) - 1 else num_bins
            self._pieces.append(_Piece(window.flat(width), first, stop, slice(at, end)))
            at = end

    def valid(self) -> np.ndarray:
        return self._written("valid", bool)

    def ids(self) -> np.ndarray:
        return self._written("ids", self._window.id_dtype, self._window.pad)

    def labels(self) -> np.ndarray:
        return self._written("labels", "int64", IGNORED_LABEL)

    def loss_mask(self) -> np.ndarray:
        return self._written("loss_mask", bool)

    def modality(self) -> np.ndarray:
        return self._written("modality", np.int8)

    def positions(self) -> np.ndarray:
        return self._written("positions", position_dtype(self._window.id_dtype, self._shape[1]))

    def segments(self) -> np.ndarray:
        return self._written("segments", np.int32)

    def edges(self) -> tuple[np.ndarray, int]:
        """([num_segments + 1] int32, the longest): where segments begin in the flat batch, and its end."""
        (num_bins, width), num_filled, longest = self._shape, 0, 0
        flat, first, stop, _ = self._pieces[0]
        window = flat.window
        if stop - first == num_bins and window.all_are_filled:  # nearly always
            begin, end = window.first_edge[first], window.first_edge[stop]
            edges = (flat.edges[begin : end + 1] - first * width).astype(np.int32)
            return edges, int(window.edges[2][begin:end].max())
        parts: list[np.ndarray | list[int]] = []
        for flat, first, stop, rows in self._pieces:
            window = flat.window
            some = slice(window.first_edge[first], window.first_edge[stop])
            parts.append(flat.edges[some] - (first - rows.start) * width)
            longest = max(longest, int(np.maximum.reduce(window.edges[2][some], initial=0)))
            num_filled += window.num_filled[stop] - window.num_filled[first]
        parts.append(np.arange(num_filled, num_bins + 1) * width)  # an empty bin is a segment, too
        return np.concatenate(parts).astype(np.int32), max(longest, width * (num_filled < num_bins))

    def _written(self, name: str, dtype: np.typing.DTypeLike, pad: int = 0) -> np.ndarray:
        out = empty(self._shape, dtype)
        for flat, first, stop, rows in self._pieces:
            flat.write(name, out[rows], first, stop, pad, self._later)
        return out


def tile(compiled: Kernels, lineup: Lineup, bins: Bins, first_tokens: np.ndarray) -> Tiles:
    """Where the runs of bins stand. first_tokens: [num_parts], where the tokens of each part begin."""
    pieces = {} if bins.pieces is None else dict(zip(("skip", "take"), bins.pieces, strict=True))
    of_bins = {"sample": bins.sample, "first_row": bins.first_row, "width": bins.width, **pieces}
    return compiled.tile(_fields(lineup, first_tokens), of_bins, room=_most_runs(lineup, bins))


def _without_first_labels(runs: np.ndarray, first_run: list[int]) -> tuple[np.ndarray, list[int]]:
    """Runs as in `Tiles`, where the first id of each row is not trained on; the others of its run are another run."""
    column, length, start, is_trained, position = 1, 2, 4, 7, 8
    is_first = (runs[position] == 0) & (runs[is_trained] > 0)
    cut = np.flatnonzero(is_first & (runs[length] > 1))
    runs = np.repeat(runs, 1 + np.isin(np.arange(runs.shape[1]), cut), axis=1) if len(cut) else runs.copy()
    head = cut + np.arange(len(cut))
    rest = head + 1
    runs[length, head], runs[length, rest] = 1, runs[length, rest] - 1
    runs[column, rest] += 1
    runs[position, rest] += 1
    runs[start, rest] += runs[start, rest] >= 0
    runs[is_trained, (runs[position] == 0)] = 0
    return runs, (np.array(first_run) + np.searchsorted(cut, first_run)).tolist()


def _fields(lineup: Lineup, first_tokens: np.ndarray) -> Values:
    spans, form, controls = lineup.spans, lineup.form, lineup.controls
    return {
        "num_samples": lineup.num_rows,
        "num_spans": len(lineup.taken),
        "num_parts": len(first_tokens),
        "has_bos": controls.bos is not None,
        "has_end": lineup.has_end,
        "framed": form.framed,
        "bos": controls.bos or 0,
        "eos": controls.eos or 0,
        **{name: getattr(controls, name) for name in ("unconditional", "boi", "eoi", "img_token_shift")},
        **{f"{kind}_trained": kind in form.loss for kind in ("bos", "text", "boi", "image", "eoi", "eos")},
        "row": spans.row,
        "part": spans.part,
        "token": spans.first_token,
        "taken": lineup.taken,
        **{name: column for name in ("head", "tail") if (column := getattr(lineup, name)).any()},
        "first_token_of_part": first_tokens,
        "is_image": lineup.is_image,
        "has_loss": lineup.has_loss if form.eos == "turns" else None,
        **{name: getattr(lineup, name) for name in ("lead", "end", "left_out_images")},
        "is_unconditional": lineup.unconditional,
        "too_long": lineup.too_long,
        "truncated": lineup.truncated,
    }


def _most_runs(lineup: Lineup, bins: Bins) -> int:
    """At least as many as the rows of the bins have: no id is in two of them, so a cut makes one run more."""
    of_row = 2 + int(lineup.lead.max(initial=0))
    of_span = 1 + bool(lineup.head.any()) + bool(lineup.tail.any())
    return bins.num_rows * of_row + len(lineup.taken) * of_span
