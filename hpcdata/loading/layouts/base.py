"""What all layouts share: options, binding to a dataset, batches and their accounts. See `named`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import SpanTable, TokenDataset
from hpcdata.dataset.manifest import Manifest
from hpcdata.loading.layouts.assembly import Arranged, Batch, BatchCounts
from hpcdata.loading.layouts.padded_text import Frame
from hpcdata.loading.layouts.sequences import Controls, Form, Lineup
from hpcdata.native.arrays import IGNORED_LABEL
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins
from hpcdata.order.draws import Draws

KEYS = ("input_ids", "attention_mask", "modality", "labels", "position_ids", "index")
PACKED_KEYS = ("segment_ids", "cu_seqlens")
"""Only in packed batches; `max_seqlen` comes with the second."""
_PACKED = tuple(key for key in KEYS + PACKED_KEYS if key != "attention_mask")
CONSUMERS = {
    "any": (KEYS, _PACKED),
    "torch": (KEYS, _PACKED),
    "hf": (
        ("input_ids", "attention_mask", "labels", "position_ids"),
        ("input_ids", "labels", "position_ids", "cu_seqlens"),
    ),
}
"""Which arrays are made for whom, of a batch and of a packed one. A mask of two dimensions says which ids are there,
and not which belong together: with it, models of transformers attend across the samples of a row.
"""
__all__ = ["IGNORED_LABEL", "KEYS", "PACKED_KEYS", "Batch", "BatchCounts", "Layout", "MakeBatch"]
MakeBatch = Callable[[int, int, Later | None, int | None], Batch]
"""Of some rows, from the first to the one behind the last. With a `later`, the last of its arrays may be there then.
The number is its columns, where more rows than these decide (None: what they need).
"""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The options that all layouts share. `form`, set by the class, says how a sample becomes a sequence."""

    name: ClassVar[str] = ""
    form: ClassVar[Form] = Form()

    add_bos: bool | None = None
    """Begin the text with the tokenizer's bos id; by default when it has one."""
    add_eos: bool | None = None
    """End the text (cut or not) with the tokenizer's eos id; by default when it has one."""
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    """What stands on padding: by default the tokenizer's pad id, else its eos id, else 0."""
    pad: str = "max_len"
    """Columns of a batch: `max_len`, `batch_max` (the longest of the global batch), `to_N` (its next multiple of N)."""
    too_long: str = "raise"
    """A sample that does not fit without cutting an image, or that its conversation template cannot write: `raise`, or
    `skip`: it becomes padding, and is counted. A rank whose rows are all such has no loss in that step; with packing,
    such samples are in no row."""
    keys: tuple[str, ...] | None = None
    """Which arrays to make: by default those for the consumer."""
    consumer: str = "any"
    """Who takes the batches: `hf`, a model of transformers, by `model(**batch)`; `torch`, one's own; `any`."""
    ids: str = "int64"
    """How ids are shipped: `int64`, or `uint16`, a quarter of the bytes, for `hpcdata.widen` on the device."""

    def bind(self, manifest: Manifest) -> Self:
        """The same layout with every option filled in. Raises UserError where the dataset cannot be laid out so."""
        bound = self._bound(manifest)
        bound._check_ids(manifest)
        return bound

    def _bound(self, manifest: Manifest) -> Self:
        if self.consumer not in CONSUMERS:
            raise UserError(f"consumer={self.consumer!r}, expected one of {', '.join(sorted(CONSUMERS))}")
        known = KEYS + PACKED_KEYS
        unknown = sorted(set(self.keys or ()) - set(known))
        if unknown:
            raise UserError(f"layout {self.name}: unknown key {unknown[0]!r}, known: {', '.join(known)}")
        if not re.fullmatch(r"max_len|batch_max|to_[1-9]\d*", self.pad):
            raise UserError(f"layout {self.name}: pad={self.pad!r}, expected max_len, batch_max or to_N such as to_128")
        if self.too_long not in ("raise", "skip"):
            raise UserError(f"layout {self.name}: too_long={self.too_long!r}, expected raise or skip")
        text = manifest.text
        bos_id = text.bos_id if text and self.bos_id is None else self.bos_id
        eos_id = text.eos_id if text and self.eos_id is None else self.eos_id
        pad_ids = (self.pad_id, text.pad_id if text else None, eos_id, 0)
        return dataclasses.replace(
            self,
            add_bos=self._wanted("bos", self.add_bos, bos_id),
            add_eos=self._wanted("eos", self.add_eos, eos_id),
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=next(pad_id for pad_id in pad_ids if pad_id is not None),
        )

    def with_room(self, length: int, *, force: bool = False) -> Self:
        """For packing: samples may have `length` ids where the layout does not say otherwise (or even if it does)."""
        return self

    def settings(self) -> dict[str, Any]:
        """What the arrays depend on, as plain values: enters the loader's state."""
        values = {option.name: getattr(self, option.name) for option in dataclasses.fields(self)}
        del values["keys"], values["ids"], values["consumer"]
        return {"name": self.name, **values}

    @property
    def max_width(self) -> int:
        """The most ids of a sample, and the columns of a batch that is padded to `max_len`."""
        raise NotImplementedError

    def batch(
        self,
        dataset: TokenDataset,
        rows: np.ndarray,
        seeds: np.ndarray | None = None,
        table: SpanTable | None = None,
    ) -> Batch:
        """The arrays for `rows` of the dataset ([num_rows] integers), each sample a row; the layout must be bound.

        seeds: [num_rows], see hpcdata.order.seeding; by default the rows. Only layouts that draw lots look at them.
        table: what `dataset.spans(rows)` returns, if it was looked up before.
        """
        lineup = self.lineup(table or dataset.spans(rows), rows if seeds is None else seeds)
        self.check_length(lineup.index, lineup.too_long)
        arranged = self.arrange(dataset, lineup, Bins.one_each(len(rows)))
        return arranged.batch(0, len(rows), self.width(lineup.length))

    def prepare(self, dataset: TokenDataset, table: SpanTable, seeds: np.ndarray | None) -> MakeBatch:
        """What makes the batch of rows `first` to `stop` - 1 of a table: for several steps that share one lookup.

        A sample that does not fit is an error of the batch that it is in.
        """
        lineup = self.lineup(table, seeds)
        arranged = self.arrange(dataset, lineup, Bins.one_each(lineup.num_rows))

        def batch(first: int, stop: int, later: Later | None = None, width: int | None = None) -> Batch:
            self.check_length(lineup.index[first:stop], lineup.too_long[first:stop])
            columns = self.width(lineup.length[first:stop]) if width is None else width
            return arranged.batch(first, stop, columns, later)

        return batch

    def lineup(self, table: SpanTable, seeds: np.ndarray | None, *, room: int | None = None) -> Lineup:
        """The rows of the table, lined up by the form; at most `room` ids each where they are packed."""
        limit = self.max_width if room is None else min(room, self.max_width)
        return Lineup(table, self.form, self.controls, limit=limit, unconditional=self.unconditional(seeds))

    def arrange(self, dataset: TokenDataset, lineup: Lineup, bins: Bins, *, packed: bool = False) -> Arranged:
        """What makes the batches of samples that stand in bins."""
        narrow = "uint16" if self.fits_16_bits(dataset.manifest) else "int64"
        return Arranged(
            dataset,
            lineup,
            bins,
            keys=self.keys_of(packed=packed),
            pad=self.controls.pad,
            id_dtype=self.ids,
            narrow=narrow,
            is_packed=packed,
        )

    def keys_of(self, *, packed: bool) -> tuple[str, ...]:
        """Which arrays are made."""
        if self.keys is None:
            return CONSUMERS[self.consumer][packed]
        return self.keys if packed else tuple(key for key in self.keys if key not in PACKED_KEYS)

    def width(self, lengths: np.ndarray) -> int:
        """Columns for sequences of these lengths, by the pad mode."""
        if self.pad == "max_len":
            return self.max_width
        multiple = 1 if self.pad == "batch_max" else int(self.pad.removeprefix("to_"))
        return max(1, -(-int(lengths.max(initial=0)) // multiple)) * multiple

    @property
    def draws_lots(self) -> bool:
        """Whether it looks at seeds."""
        return False

    def seeds_of(self, draws: Draws) -> np.ndarray | None:
        """Those that `lineup` wants: to compute them takes its time."""
        return draws.seeds if self.draws_lots else None

    def unconditional(self, seeds: np.ndarray | None) -> np.ndarray | None:
        """[num_rows] bool: whose text is dropped this time; None where nobody's is."""
        return None

    def check_length(self, index: np.ndarray, too_long: np.ndarray, room: int | None = None) -> None:
        """Raises UserError for samples that do not fit without cutting an image, unless they are to be skipped.

        room: ids of a row, where it is not as wide as the layout makes it.
        """
        if too_long.any() and self.too_long == "raise":
            remedy = "a greater max_length" if hasattr(self, "max_length") else "longer rows, such as packing=4096"
            width = room or self.max_width
            raise UserError(
                f"layout {self.name}: sample {index[too_long.argmax()]} does not fit into {width} ids without "
                f'cutting an image: use {remedy}, or too_long="skip" to leave such samples out, counted'
            )

    def check_images(self, index: np.ndarray, num_images: np.ndarray, most: int) -> None:
        """The same for samples with more images than a packed row may have."""
        if num_images.max(initial=0) > most and self.too_long == "raise":
            at = int(num_images.argmax())
            raise UserError(
                f"layout {self.name}: sample {index[at]} has {num_images[at]} images, a packed row may have {most}: "
                'use a greater max_images, or too_long="skip" to leave such samples out, counted'
            )

    @property
    def controls(self) -> Controls:
        return Controls(bos=self.frame.bos, eos=self.frame.eos, pad=self.frame.pad)

    @property
    def frame(self) -> Frame:
        return Frame(
            bos=self.bos_id if self.add_bos else None, eos=self.eos_id if self.add_eos else None, pad=self.pad_id or 0
        )

    def _wanted(self, name: str, wanted: bool | None, token_id: int | None) -> bool:
        if wanted and token_id is None:
            raise UserError(
                f"{name} is wanted, but the dataset's tokenizer has no {name} id: leave it out, or pass {name}_id"
            )
        return token_id is not None if wanted is None else wanted

    def _range_of_ids(self, manifest: Manifest) -> tuple[int, int]:
        """The least and the greatest id that a batch may hold."""
        controls = self.controls
        least, most = 0, int(np.iinfo(manifest.id_dtype).max) if manifest.text is None else manifest.text.vocab_size - 1
        if self.form.images and manifest.counts.images:
            codes = manifest.image.codebook_size if manifest.image else np.iinfo(manifest.id_dtype).max + 1
            most = max(most, controls.img_token_shift + int(codes) - 1)
        others = [value for value in vars(controls).values() if value is not None]
        return min(least, *others), max(most, *others)

    def fits_16_bits(self, manifest: Manifest) -> bool:
        """Whether every id that a batch may hold does."""
        least, most = self._range_of_ids(manifest)
        return manifest.id_dtype == "uint16" and least >= 0 and most < 2**16

    def _check_ids(self, manifest: Manifest) -> None:
        """Raises UserError unless every id that the layout makes can be shipped as `ids` says."""
        if self.ids not in ("int64", "uint16"):
            raise UserError(f"layout {self.name}: ids={self.ids!r}, expected int64 or uint16")
        if self.ids == "int64":
            return
        if self.keys is not None and "labels" in self.keys and "input_ids" not in self.keys:
            raise UserError(f'layout {self.name}: with ids="uint16" labels are made of input_ids: add them to keys')
        if not self.fits_16_bits(manifest):
            least, most = self._range_of_ids(manifest)
            raise UserError(
                f"layout {self.name}: its ids go from {least} to {most}, stored as {manifest.id_dtype}, more than "
                'uint16 holds: use ids="int64"'
            )

    def _check_width(self, option: str, width: int | None, manifest: Manifest) -> None:
        if width is None:
            raise UserError(f"layout {self.name} needs {option}: the dataset was made without data.block_size")
        least = self.frame.num_added + (manifest.text is not None)
        if width < least:
            raise UserError(f"layout {self.name}: {option}={width}, but bos, eos and one id of text need {least}")


def default_shift(manifest: Manifest) -> int:
    for shift in (manifest.layout.img_token_shift, manifest.layout.text_vocab_size):
        if shift is not None:
            return shift
    return manifest.text.vocab_size if manifest.text else 0


def default_image_tokens(manifest: Manifest) -> int | None:
    if manifest.image is None:
        return 0 if not manifest.counts.images else None
    resolution = manifest.layout.resolution
    return None if resolution is None else (resolution // manifest.image.downsample) ** 2


def check_shift(name: str, img_token_shift: int | None, manifest: Manifest) -> None:
    vocab_size = manifest.text.vocab_size if manifest.text else 0
    shift = img_token_shift or 0
    if manifest.image is not None and shift < vocab_size:
        raise UserError(
            f"layout {name}: img_token_shift={shift} is below the text vocabulary of {vocab_size} ids: "
            f"image codes would look like text; pass img_token_shift={vocab_size} or more"
        )
