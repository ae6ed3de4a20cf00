"""Spans -> sequences: for each row the runs of ids that it consists of, control tokens included. No ids are read here.

A `Form` says how a layout lines up the spans of a sample; `Lineup` applies it to a batch of rows at once:

    row:   [bos] [unconditional] ( [boi] image [eoi] | text [eos] )* [eos] [padding]

Every run is a stretch of stored ids with a number to add, or a literal repeated. The runs of consecutive rows tile the
arrays that `assembly_numpy` makes of them, so that neither side ever works per id in Python. The compiled loops take a
`Lineup` as it is, and find the runs by themselves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpcdata.dataset.dataset import SpanTable
from hpcdata.dataset.id_rows import LITERAL
from hpcdata.native.arrays import before_in_row, ragged, totals_before
from hpcdata.native.forks import Lazy
from hpcdata.samples import LOSS_FLAG, Kind


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a layout lines up the spans of a sample, and what it trains on."""

    order: Literal["stored", "text_first", "image_first"] = "stored"
    images: bool = True
    """False: images are left out, and counted."""
    framed: bool = False
    """boi and eoi around every image."""
    eos: Literal["end", "text", "turns"] = "end"
    """Behind the sequence, the text, or every turn that is trained on."""
    cut: Literal["text", "tail"] = "text"
    """What makes room in a sequence that is too long: the ends of its texts, or its own end. Images are never cut."""
    loss: frozenset[str] = frozenset({"bos", "text", "boi", "image", "eoi", "eos"})
    """Kinds of ids with labels; with `turns`, texts and the eos behind them only where the span's loss flag is set."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Ids that stand around spans (None: not there) and what is added to image codes."""

    bos: int | None = None
    eos: int | None = None
    boi: int = 0
    eoi: int = 0
    unconditional: int = 0
    pad: int = 0
    img_token_shift: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Sequences as runs. Row columns are [num_rows], run columns [num_runs] in the order of the rows."""

    index: np.ndarray
    """The samples' indices in the plan."""
    length: np.ndarray
    """Valid ids of each row, 0 where the sample was left out."""
    first_run: np.ndarray
    """[num_rows + 1]; the last run of a row is its padding, of length 0 until `assembly_numpy` fills it in."""
    text_tokens: np.ndarray
    image_tokens: np.ndarray
    truncated: np.ndarray
    too_long: np.ndarray
    left_out_images: np.ndarray
    grid: np.ndarray
    """height * 65536 + width of the row's first image, 0 without one."""
    run_length: np.ndarray
    run_value: np.ndarray
    """A literal id, or what is added to the stored ids."""
    run_part: np.ndarray
    run_token: np.ndarray
    """Where the stored ids start in `run_part`."""
    run_image: np.ndarray
    run_loss: np.ndarray
    run_valid: np.ndarray

    def between(self, start: int, stop: int) -> Sequences:
        """Rows `start` to `stop` - 1 by themselves."""
        runs = slice(*self.first_run[[start, stop]].tolist())
        return Sequences(
            first_run=self.first_run[start : stop + 1] - runs.start,
            **{name: getattr(self, name)[start:stop] for name in _ROW_COLUMNS},
            **{name: getattr(self, name)[runs] for name in _RUN_COLUMNS},
        )

    def take(self, rows: np.ndarray) -> Sequences:
        """These rows ([n], in any order, repeated or not)."""
        num_runs = np.diff(self.first_run)[rows]
        row, within = ragged(num_runs)
        runs = self.first_run[rows][row] + within
        return Sequences(
            first_run=totals_before(num_runs),
            **{name: getattr(self, name)[rows] for name in _ROW_COLUMNS},
            **{name: getattr(self, name)[runs] for name in _RUN_COLUMNS},
        )

    @classmethod
    def join(cls, several: list[Sequences]) -> Sequences:
        if len(several) == 1:
            return several[0]
        num_runs = np.concatenate([np.diff(sequences.first_run) for sequences in several])
        columns = {
            name: np.concatenate([getattr(sequences, name) for sequences in several])
            for name in (*_ROW_COLUMNS, *_RUN_COLUMNS)
        }
        return cls(first_run=totals_before(num_runs), **columns)


_RUN_COLUMNS = tuple(field.name for field in dataclasses.fields(Sequences) if field.name.startswith("run_"))
_ROW_COLUMNS = tuple(
    field.name for field in dataclasses.fields(Sequences) if field.name not in (*_RUN_COLUMNS, "first_run")
)


class Lineup:
    """A batch of rows, lined up: lengths at once, `sequences()` when the runs are wanted too.

    Row columns are [num_rows], span columns [num_spans], of the `spans` that take part:

        index, length, truncated, too_long, left_out_images      as in Sequences
        unconditional                                            whether the text is replaced by one id
        lead, end                                                runs before its spans, ids of the eos behind them
        is_image, has_loss                                       kind of a span, its loss flag
        taken, head, tail                                        ids of the span itself, in front of it and behind it
    """

    length: np.ndarray

    def __init__(
        self,
        table: SpanTable,
        form: Form,
        controls: Controls,
        *,
        limit: int | None = None,
        text_limit: int | None = None,
        in_columns: bool = False,
        unconditional: np.ndarray | None = None,
    ) -> None:
        """`limit`: the most ids of a row. `text_limit`: the most ids without its images; with `in_columns`, the images
        start there, behind padding. `unconditional`: [num_rows] bool, whose text is replaced by one id.
        """
        self.index = table.index
        self.form, self.controls = form, controls
        self.num_rows = num_rows = table.num_rows
        self._all_images = np.bincount(table.row[table.kind == Kind.IMAGE], minlength=num_rows)
        self.spans = spans = _in_order(table, form)
        self.is_image = spans.kind == Kind.IMAGE
        self.taken = spans.length
        self.unconditional = np.zeros(num_rows, bool) if unconditional is None else unconditional
        if self.unconditional.any():
            self.taken = np.where(~self.is_image & self.unconditional[spans.row], 0, spans.length)
        self.head = (self.is_image & form.framed).astype(np.int64)
        self.tail = self.head + (self._ends_text() if controls.eos is not None else 0)
        self._head_slot, self._tail_slot = self.head > 0, self.tail > 0
        self.lead = np.full(num_rows, int(controls.bos is not None)) + self.unconditional
        if form.eos == "text" and controls.eos is not None:
            self.lead += np.bincount(spans.row[~self.is_image], minlength=num_rows) == 0
        self.end = np.full(num_rows, int(self.has_end))
        self._measure()
        self.truncated = self.too_long = np.zeros(num_rows, bool)
        if text_limit is not None:
            self._cut(text_limit + np.bincount(spans.row, self.taken * self.is_image, num_rows).astype(np.int64))
        if limit is not None:
            self._cut(np.full(num_rows, limit))
        if text_limit is not None and in_columns:
            self._open_gap(text_limit)

    @Lazy
    def has_loss(self) -> np.ndarray:
        """[num_spans]: the loss flags."""
        return self.spans.flags & LOSS_FLAG > 0

    @Lazy
    def left_out_images(self) -> np.ndarray:
        return self._all_images if not self.form.images else np.where(self.too_long, self._all_images, 0)

    @property
    def has_end(self) -> bool:
        return self.form.eos == "end" and self.controls.eos is not None

    @property
    def grid(self) -> np.ndarray:
        grid = np.zeros(self.num_rows, np.int64)
        images = np.flatnonzero(self.is_image)[::-1]
        if len(images):
            grid[self.spans.row[images]] = self.spans.height[images] * 65536 + self.spans.width[images]
        return grid

    @property
    def num_images(self) -> np.ndarray:
        """[num_rows]: of the images that take part."""
        return np.bincount(self.spans.row[self.is_image], minlength=self.num_rows)

    def leave_out(self, rows: np.ndarray) -> None:
        """Empties rows ([num_rows] bool), as those that are too long."""
        if rows.any():
            self.too_long = self.too_long | rows
            self.truncated = self.truncated & ~rows
            self.length = np.where(rows, 0, self.length)

    def sequences(self) -> Sequences:
        """The runs of all rows."""
        spans, controls, form, loss = self.spans, self.controls, self.form, self.form.loss
        row = spans.row
        slots = 1 + self._head_slot.astype(np.int64) + self._tail_slot
        lead, end = self.lead, int(self.has_end)
        num_runs = lead + end + 1 + np.bincount(row, slots, self.num_rows).astype(np.int64)
        first_run = totals_before(num_runs)
        before = np.cumsum(slots) - slots
        first_span = np.searchsorted(row, np.arange(self.num_rows))
        at_row = np.append(before, slots.sum())[first_span]
        at = first_run[row] + lead[row] + before - at_row[row] + self._head_slot
        runs = _Columns(int(first_run[-1]), controls.pad)
        runs.put(at, self.taken, np.where(self.is_image, controls.img_token_shift, 0), valid=True)
        runs.part[at], runs.token[at], runs.image[at] = spans.part, spans.first_token, self.is_image
        flagged = self.has_loss if form.eos == "turns" else np.ones(len(row), bool)
        runs.loss[at] = np.where(self.is_image, "image" in loss, ("text" in loss) & flagged)
        heads, tails = np.flatnonzero(self._head_slot), np.flatnonzero(self._tail_slot)
        runs.put(at[heads] - 1, self.head[heads], controls.boi, loss="boi" in loss, valid=form.framed)
        if not form.framed:
            runs.value[at[heads] - 1] = controls.pad
        is_eoi = self.is_image[tails]
        runs.put(at[tails] + 1, self.tail[tails], np.where(is_eoi, controls.eoi, controls.eos or 0), valid=True)
        runs.loss[at[tails] + 1] = np.where(is_eoi, "eoi" in loss, "eos" in loss)
        self._put_row_controls(runs, first_run, end)
        kept = np.where(self.too_long, 0, 1)
        runs.length *= np.repeat(kept, num_runs)
        image_tokens = np.bincount(row, self.taken * self.is_image, self.num_rows).astype(np.int64) * kept
        gap = np.bincount(row, self.head * (not form.framed), self.num_rows).astype(np.int64) * kept
        return Sequences(
            index=self.index,
            length=self.length,
            first_run=first_run,
            text_tokens=self.length - image_tokens - gap,
            image_tokens=image_tokens,
            truncated=self.truncated,
            too_long=self.too_long,
            left_out_images=self.left_out_images,
            grid=self.grid,
            run_length=runs.length,
            run_value=runs.value,
            run_part=runs.part,
            run_token=runs.token,
            run_image=runs.image,
            run_loss=runs.loss,
            run_valid=runs.valid,
        )

    def _put_row_controls(self, runs: _Columns, first_run: np.ndarray, end: int) -> None:
        controls, loss, starts = self.controls, self.form.loss, first_run[:-1]
        if controls.bos is not None:
            runs.put(starts, 1, controls.bos, loss="bos" in loss, valid=True)
        where = starts[self.unconditional] + int(controls.bos is not None)
        runs.put(where, 1, controls.unconditional, loss="text" in loss, valid=True)
        if self.form.eos == "text" and controls.eos is not None:
            textless = self.lead - self.unconditional - int(controls.bos is not None) > 0
            runs.put((starts + self.lead)[textless] - 1, 1, controls.eos, loss="eos" in loss, valid=True)
        if end:
            runs.put(first_run[1:] - 2, self.end, controls.eos or 0, loss="eos" in loss, valid=True)

    def _ends_text(self) -> np.ndarray:
        """Whether an eos stands behind each span."""
        text = ~self.is_image
        if self.form.eos == "end":
            return np.zeros(len(text), np.int64)
        if self.form.eos == "turns":
            text = text & self.has_loss
        continued = np.zeros(len(text), bool)
        continued[:-1] = text[1:] & (self.spans.row[1:] == self.spans.row[:-1])
        return (text & ~continued).astype(np.int64)

    def _measure(self) -> None:
        of_spans = np.bincount(self.spans.row, self.taken + self.head + self.tail, self.num_rows)
        self.length = of_spans.astype(np.int64) + self.lead + self.end

    def _cut(self, limit: np.ndarray) -> None:
        """Makes every row at most `limit` long, or marks it as too long and empties it."""
        over = self.length > limit
        if not over.any():
            return
        row, text = self.spans.row, ~self.is_image
        if self.form.cut == "text":
            fixed = self.length - np.bincount(row, self.taken * text, self.num_rows).astype(np.int64)
            room = (limit - fixed)[row] - before_in_row(row, self.taken * text)
            kept = np.where(text, np.clip(room, 0, self.taken), self.taken)
            too_long = fixed > limit
        else:
            limit_of = limit[row]
            offset = before_in_row(row, self.taken + self.head + self.tail) + self.lead[row] + self.head
            kept = np.clip(limit_of - offset, 0, self.taken)
            ends = np.where(self.is_image, offset + self.taken + self.tail, 0)
            too_long = (np.bincount(row, ends > limit_of, self.num_rows) > 0) | (self.lead > limit)
            self.tail = np.where(offset + self.taken + self.tail > limit_of, 0, self.tail)
            self.end = np.where(over, 0, self.end)
        self.taken = kept
        self._measure()
        self.too_long = self.too_long | too_long
        self.truncated = (self.truncated | over) & ~self.too_long
        self.length = np.where(self.too_long, 0, self.length)

    def _open_gap(self, text_columns: int) -> None:
        """Padding in front of each image, so that it starts at column `text_columns`."""
        row = self.spans.row
        before = before_in_row(row, self.taken + self.tail) + self.lead[row]
        self.head = np.where(self.is_image, text_columns - before, 0)
        self._head_slot = self.is_image
        self._measure()


class _Columns:
    """Run columns to be filled in: all padding of length 0 at first."""

    def __init__(self, num_runs: int, pad: int) -> None:
        self.length = np.zeros(num_runs, np.int64)
        self.value = np.full(num_runs, pad, np.int64)
        self.part = np.full(num_runs, LITERAL, np.int64)
        self.token = np.zeros(num_runs, np.int64)
        self.image = np.zeros(num_runs, bool)
        self.loss = np.zeros(num_runs, bool)
        self.valid = np.zeros(num_runs, bool)

    def put(
        self, at: np.ndarray, length: np.ndarray | int, value: np.ndarray | int, *, loss: bool = False, valid: bool
    ) -> None:
        self.length[at], self.value[at], self.loss[at], self.valid[at] = length, value, loss, valid


def _in_order(table: SpanTable, form: Form) -> SpanTable:
    """The spans that take part, row after row, in the order of the form."""
    mask = (table.kind == Kind.TEXT) | (table.kind == Kind.IMAGE) if form.images else table.kind == Kind.TEXT
    spans = table if mask.all() else table.select(mask)
    key = spans.row
    if form.order != "stored" and form.images:
        key = 2 * key + (spans.kind == (Kind.IMAGE if form.order == "text_first" else Kind.TEXT))
    if np.all(key[1:] >= key[:-1]):
        return spans
    return spans.select(np.argsort(key, kind="stable"))
