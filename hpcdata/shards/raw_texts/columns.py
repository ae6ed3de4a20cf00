"""Raw texts beside ids (`text.keep_raw`): the UTF-8 bytes of every text of a sample, as its source gave them.

    samples/first_text.memmap    [num_samples]     int64, offset into texts
    samples/num_texts.memmap     [num_samples]     int32
    texts/first_byte.memmap      [num_texts]       int64, offset into raw/bytes
    texts/num_bytes.memmap       [num_texts]       int64
    texts/place.memmap           [num_texts]       int32, before which span of its sample it stands
    texts/flags.memmap           [num_texts]       uint8, role in bits 0-2, loss in bit 3, as those of spans
    raw/bytes.memmap             [num_raw_bytes]   uint8, the texts end to end

They are columns of their own and no spans of ids: a byte takes one byte, and loaders, which count and copy ids, see
nothing of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.samples import LOSS_FLAG, ROLE_MASK, RawText, Role
from hpcdata.shards.schema import Schema, Sizes

OFFSETS = {"samples/first_text": "texts", "texts/first_byte": "raw"}
"""Columns that point into another table of their part."""


def keeps_texts(schema: Schema) -> bool:
    return "raw" in schema.tables


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTexts:
    """Of consecutive samples: `counts` [num_samples], the others [num_texts], and all bytes end to end."""

    counts: np.ndarray
    num_bytes: np.ndarray
    place: np.ndarray
    flags: np.ndarray
    data: bytes

    @classmethod
    def of(cls, samples: Sequence[Sequence[RawText]]) -> RawTexts:
        texts = [text for of_sample in samples for text in of_sample]
        return cls(
            counts=np.array([len(of_sample) for of_sample in samples], np.int64),
            num_bytes=np.array([len(text.data) for text in texts], np.int64),
            place=np.array([text.place for text in texts], np.int64),
            flags=np.array([text.flags for text in texts], np.int64),
            data=b"".join([text.data for text in texts]),
        )

    @classmethod
    def joined(cls, num_samples: int, groups: Sequence[tuple[np.ndarray, RawTexts]]) -> RawTexts:
        """One of several: which samples each is of ([n] integers), and their texts."""
        counts, pieces = np.zeros(num_samples, np.int64), [b""] * num_samples
        for at, group in groups:
            counts[at] = group.counts
            for place, data in zip(at.tolist(), group.of_samples(), strict=True):
                pieces[place] = data
        sample = np.concatenate([np.repeat(at, group.counts) for at, group in groups])
        order = np.argsort(sample, kind="stable")
        num_bytes, place, flags = (
            np.concatenate([getattr(group, name) for _, group in groups])[order]
            for name in ("num_bytes", "place", "flags")
        )
        return cls(counts=counts, num_bytes=num_bytes, place=place, flags=flags, data=b"".join(pieces))

    @classmethod
    def of_documents(cls, texts: Sequence[bytes]) -> RawTexts:
        """Of samples of one text each."""
        number = len(texts)
        return cls(
            counts=np.ones(number, np.int64),
            num_bytes=np.array([len(text) for text in texts], np.int64),
            place=np.zeros(number, np.int64),
            flags=np.full(number, RawText(data=b"").flags),
            data=b"".join(texts),
        )

    def columns(self, before: Sizes) -> dict[str, np.ndarray]:
        """Path of each column -> its rows. before: rows of each table that the shard has already."""
        return {
            "samples/first_text.memmap": np.cumsum(self.counts) - self.counts + before["texts"],
            "samples/num_texts.memmap": self.counts,
            "texts/first_byte.memmap": np.cumsum(self.num_bytes) - self.num_bytes + before["raw"],
            "texts/num_bytes.memmap": self.num_bytes,
            "texts/place.memmap": self.place,
            "texts/flags.memmap": self.flags,
            "raw/bytes.memmap": np.frombuffer(self.data, "u1"),
        }

    def of_samples(self) -> list[bytes]:
        """The texts of each sample, end to end."""
        ends = _totals(self.num_bytes)[_totals(self.counts)]
        return [self.data[start:end] for start, end in itertools.pairwise(ends.tolist())]

    def rows(self) -> list[tuple[RawText, ...]]:
        """Of each sample, in their order."""
        texts = iter(self.split())
        return [tuple(itertools.islice(texts, count)) for count in self.counts.tolist()]

    def split(self) -> Iterator[RawText]:
        """One after the other, whichever sample they are of."""
        start = 0
        for size, place, flags in zip(self.num_bytes.tolist(), self.place.tolist(), self.flags.tolist(), strict=True):
            yield text_of(self.data[start : start + size], place, flags)
            start += size

    def hashed(self) -> list[bytes]:
        """Of each sample what its content digest covers: int64 place, flags and size of each text, then its bytes."""
        heads = np.column_stack([self.place, self.flags, self.num_bytes]).astype("<i8").tobytes()
        texts = _totals(self.counts)
        starts = _totals(self.num_bytes)[texts]
        return [
            heads[24 * text : 24 * next_text] + self.data[start:end]
            for (text, next_text), (start, end) in zip(
                itertools.pairwise(texts.tolist()), itertools.pairwise(starts.tolist()), strict=True
            )
        ]


def _totals(values: np.ndarray) -> np.ndarray:
    """[n + 1]: the sum of the values before each, and of all."""
    return np.concatenate([[0], np.cumsum(values)])


def text_of(data: bytes, place: int, flags: int) -> RawText:
    return RawText(data=data, place=place, role=Role(flags & ROLE_MASK), loss=bool(flags & LOSS_FLAG))


def stored_texts(arrays: Mapping[str, np.ndarray], start: int, end: int) -> RawTexts:
    """Those of samples `start` to `end` of the columns of one shard. Raises ValueError for offsets that are none."""
    if start == end:
        return RawTexts.of([])
    counts = np.asarray(arrays["samples/num_texts.memmap"][start:end], np.int64)
    first = np.asarray(arrays["samples/first_text.memmap"][start:end], np.int64)
    text, after = int(first[0]), int(first[-1] + counts[-1])
    num_bytes = np.asarray(arrays["texts/num_bytes.memmap"][text:after], np.int64)
    first_byte = np.asarray(arrays["texts/first_byte.memmap"][text:after], np.int64)
    begin = int(first_byte[0]) if len(first_byte) else 0
    stop = int(first_byte[-1] + num_bytes[-1]) if len(num_bytes) else 0
    if (
        min(text, begin, counts.min(), num_bytes.min(initial=0)) < 0
        or len(num_bytes) != counts.sum()
        or (first != text + np.cumsum(counts) - counts).any()
        or (first_byte != begin + np.cumsum(num_bytes) - num_bytes).any()
        or stop > len(arrays["raw/bytes.memmap"])
    ):
        raise ValueError(f"samples {start} to {end}: their raw texts do not lie end to end")
    return RawTexts(
        counts=counts,
        num_bytes=num_bytes,
        place=np.asarray(arrays["texts/place.memmap"][text:after], np.int64),
        flags=np.asarray(arrays["texts/flags.memmap"][text:after], np.int64),
        data=arrays["raw/bytes.memmap"][begin:stop].tobytes(),
    )
