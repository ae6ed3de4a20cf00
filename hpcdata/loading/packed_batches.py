"""The batches of packed steps: what is copied into which bin of a window."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.batches import Make
from hpcdata.loading.block_prefetch import SourcesAhead
from hpcdata.loading.layouts.assembly import Arranged, Batch, BatchCounts, make_batch
from hpcdata.loading.layouts.base import Layout
from hpcdata.loading.layouts.sequences import Lineup, Sequences
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws
from hpcdata.order.packing import Packing
from hpcdata.order.steps import Share
from hpcdata.order.streams import Stream
from hpcdata.order.window_steps import Place, WindowSteps, draws_of


class PackedWindow:
    """A packed window: its bins, and the draws of their rows, bin after bin; their batches are made when wanted."""

    def __init__(self, arrange: Callable[[Lineup, Bins], Arranged], lineup: Lineup, draws: Draws, bins: Bins) -> None:
        self._draws, self.bins = draws, bins
        self.skipped = draws.source[lineup.too_long]
        """Sources of the samples that are in no bin."""
        self._arrange, self._lineup, self._lock = arrange, lineup, ForkLock()
        self._arranged: Arranged | None = None

    @Lazy
    def draws(self) -> Draws:
        """Of its rows."""
        return self._draws.take(self.bins.sample)

    @property
    def arranged(self) -> Arranged:
        """What makes batches of its bins."""
        with self._lock:
            if self._arranged is None:
                self._arranged = self._arrange(self._lineup, self.bins)
        return self._arranged

    def sequences(self) -> Sequences:
        """Of its rows."""
        return self._lineup.sequences().take(self.bins.sample)


class PackedSteps(WindowSteps[PackedWindow]):
    """Several samples a row, window by window."""

    def __init__(
        self,
        dataset: TokenDataset,
        stream: Stream,
        layout: Layout,
        packing: Packing,
        size: int,
        *,
        drop_last: bool,
        num_ranks: int,
    ) -> None:
        super().__init__(stream, packing, size, drop_last=drop_last, num_ranks=num_ranks)
        self.dataset, self.layout, self._blocks = dataset, layout, SourcesAhead(dataset, stream)
        self.room = None if packing.cuts else packing.length

    def plan(self, epoch: int, step: int, share: Share) -> tuple[Make, Callable[[], np.ndarray]]:
        pieces = self.pieces(epoch, step, share)
        num_bins = sum(stop - first for _, first, stop in pieces)
        num_skipped = 0
        if share.rank == 0:  # one rank counts what is in no bin
            num_skipped = sum(len(window.skipped) for window in self.begun(epoch, step))

        def make(later: Later | None) -> Batch:
            width = self.packing.length
            if width is None:
                window, first, _ = pieces[0]
                width = int(window.bins.width[first])
            arranged = [(window.arranged, first, last) for window, first, last in pieces]
            batch = make_batch(arranged, num_bins, width, later)
            if not num_skipped:
                return batch
            return batch._replace(counts=batch.counts + BatchCounts(skipped_samples=num_skipped))

        return make, lambda: draws_of(pieces).source

    def will_draw(self, epoch: int, start: int, stop: int) -> None:
        self._blocks.reach(epoch, start, stop)

    def pack(self, draws: Draws, place: Place) -> PackedWindow:
        layout, packing, images = self.layout, self.packing, None
        lineup = layout.lineup(self.dataset.spans(draws.rows), layout.seeds_of(draws), room=self.room)
        layout.check_length(lineup.index, lineup.too_long, self.room)
        if packing.max_images is not None:
            images = lineup.num_images
            layout.check_images(lineup.index, images, packing.max_images)
            lineup.leave_out(images > packing.max_images)
        bins = place(lineup.length, lineup.grid, images)
        return PackedWindow(partial(layout.arrange, self.dataset, packed=True), lineup, draws, bins)
