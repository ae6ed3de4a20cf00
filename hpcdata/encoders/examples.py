"""Samples -> Examples: a batch of samples whose pictures were decoded gets its ids and codes.

A batch holds the same samples whatever happened before, so its codes are the same too. A sample that fails anywhere
becomes a reject row; its neighbours stay.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np

from hpcdata.encoders.text import panics
from hpcdata.encoders.text.tokenizer import TextTokenizer, check_text
from hpcdata.media import sizes as buckets
from hpcdata.media.rules import RULES, WHITE, Rule
from hpcdata.media.sizes import Size
from hpcdata.samples import (
    BadSample,
    Batch,
    Blob,
    Documents,
    Example,
    ImagePart,
    Kind,
    PreparedBatch,
    RawText,
    Reason,
    Record,
    Reject,
    Sample,
    Span,
    TextPart,
    refusal,
)
from hpcdata.shards.reject_ledger import RejectRow, reject_row
from hpcdata.shards.tables import Encoded, EncodedBatch, EncodedDocuments

if TYPE_CHECKING:
    from hpcdata.encoders.image.codes import PictureEncoder
    from hpcdata.media.pixels import Noted
    from hpcdata.runs.plan import Plan

_NO_IDS = "the tokenizer makes no ids of the text"


@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    sizes: tuple[Size, ...]
    max_pixels: int
    max_bytes: int
    jpeg_draft: bool
    rule: Rule = WHITE
    max_aspect: float | None = None
    counts_profiles: bool = False
    """Older plans do not count color profiles that are not applied."""

    @classmethod
    def of(cls, plan: Plan) -> PixelOptions | None:
        """None for a run without an image tokenizer."""
        data = plan.config.data
        if plan.image is None:
            return None
        if data.sizes is None:
            sizes = buckets.sizes(data.resolution, plan.image.downsample, data.max_aspect_ratio)
        else:
            sizes = buckets.named(data.sizes)
        return cls(
            sizes=sizes,
            max_pixels=data.max_image_pixels,
            max_bytes=data.max_record_bytes,
            jpeg_draft=data.jpeg_draft,
            max_aspect=data.max_aspect,
            rule=dataclasses.replace(RULES[plan.config.image.rule], color=data.color),
            counts_profiles=plan.found is not None,
        )


class BatchEncoder:
    """Turns prepared batches into encoded ones. Holds the tokenizers of a run; one a process."""

    def __init__(
        self,
        *,
        text: TextTokenizer | None,
        image: PictureEncoder | None,
        block_size: int | None,
        keeps_texts: bool = False,
    ) -> None:
        """keeps_texts: examples have their texts in UTF-8, too."""
        self._text = text
        self._image = image
        self._block_size = block_size
        self._keeps_texts = keeps_texts

    @overload
    def encode(self, batch: PreparedBatch, *, first_index: int, source: str) -> EncodedBatch: ...

    @overload
    def encode(self, batch: Batch, *, first_index: int, source: str) -> Encoded: ...

    def encode(self, batch: Batch, *, first_index: int, source: str) -> Encoded:
        """first_index: plan index of position 0 of the records; source: label of their input, for rejects."""
        return self.start(batch, first_index=first_index, source=source)()

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Encoded]:
        """Begins `encode`, and returns what ends it: a GPU computes while the caller does other things."""
        if isinstance(batch, Documents):
            encoded = self._encode_documents(batch, first_index, source)
            return lambda: encoded
        assert isinstance(batch, PreparedBatch)  # no source of texts and pictures gives a RowRange
        return self._start_records(batch, first_index, source)

    def _start_records(self, batch: PreparedBatch, first_index: int, source: str) -> Callable[[], EncodedBatch]:
        rejects: dict[int, RejectRow] = {}
        good: list[tuple[Sample, list[np.ndarray]]] = []
        unapplied: list[int] = []
        for record, images in zip(batch.records, batch.prepared, strict=True):
            checked = _checked(record, images)
            if isinstance(checked, BadSample):
                row = reject_row(record, checked.reason, checked.message, first_index, source)
                rejects[row.index] = row
            else:
                sample, arrays = checked
                good.append((sample, [array for array in arrays if array.ndim == 3]))
                unapplied.append(sum(int(array[0]) for array in arrays if array.ndim == 1))
        finish_images = self._image.start([image for _, images in good for image in images]) if self._image else list
        text_ids, failed = self._encode_texts([sample for sample, _ in good])
        return lambda: self._finish_records(
            good, rejects, text_ids, failed, finish_images(), first_index, source, unapplied
        )

    def _finish_records(
        self,
        good: list[tuple[Sample, list[np.ndarray]]],
        rejects: dict[int, RejectRow],
        text_ids: list[np.ndarray],
        failed: dict[int, BadSample],
        grids: list[np.ndarray],
        first_index: int,
        source: str,
        unapplied: list[int],
    ) -> EncodedBatch:
        ids, codes = iter(text_ids), iter(grids)
        examples, truncated, unapplied_profiles, fixed = [], [], [], []
        for number, (sample, _) in enumerate(good):
            spans, texts, num_cut = self._spans(sample, ids, codes)
            if number in failed:
                row = reject_row(sample, failed[number].reason, failed[number].message, first_index, source)
                rejects[row.index] = row
            elif texts or any(len(span.ids) for span in spans):
                index = first_index + sample.position
                examples.append(Example(index=index, key=sample.key, spans=tuple(spans), texts=tuple(texts)))
                truncated.append(num_cut)
                unapplied_profiles.append(unapplied[number])
                fixed.append(sample.is_fixed)
            else:
                row = reject_row(sample, Reason.EMPTY_TEXT, _NO_IDS, first_index, source)
                rejects[row.index] = row
        rows = [rejects[index] for index in sorted(rejects)]
        compared, equal = self._compare(good, iter(grids), first_index)
        return EncodedBatch(
            examples=examples,
            rejects=rows,
            truncated=truncated,
            compared_codes=compared,
            equal_codes=equal,
            unapplied_profiles=unapplied_profiles,
            fixed=fixed,
        )

    def _encode_documents(self, batch: Documents, first_index: int, source: str) -> EncodedDocuments:
        """As records are encoded for samples of one text, without an object for each of them."""
        ids, lengths, truncated = np.zeros(0, np.int32), np.zeros(len(batch.texts), np.int64), None
        crashed = dict[int, BadSample]()
        if batch.texts and self._text is not None:
            ids, offsets, crashed = panics.encode(self._text, batch.texts)
            ids, lengths, truncated = _cut(ids, offsets, self._block_size)
        is_written = lengths > 0
        if self._keeps_texts:
            is_written = np.ones(len(lengths), bool)
            is_written[list(crashed)] = False
        without = np.flatnonzero(~is_written).tolist()
        failed = [*batch.rejects, *(_without_ids(batch, row, crashed.get(row)) for row in without)]
        failed.sort(key=lambda reject: reject.position)
        written = np.array(batch.positions, np.int64)[is_written]
        kept = itertools.compress(batch.texts, is_written.tolist()) if self._keeps_texts else None
        return EncodedDocuments(
            index=first_index + batch.shift + written,
            keys=[f"{batch.key_prefix}{position}".encode() for position in written.tolist()],
            lengths=lengths[is_written],
            texts=None if kept is None else [text.encode() for text in kept],
            ids=ids,
            rejects=[
                reject_row(reject, reject.reason, reject.message, first_index + batch.shift, batch.source or source)
                for reject in failed
            ],
            truncated=None if truncated is None else truncated[is_written],
        )

    def _compare(
        self, good: list[tuple[Sample, list[np.ndarray]]], grids: Iterator[np.ndarray], first_index: int
    ) -> tuple[int, int]:
        """(codes compared with those in fp32, equal ones)."""
        num_compared = num_equal = 0
        for sample, images in good:
            its_grids = list(islice(grids, len(images)))
            if self._image is not None and images:
                compared, equal = self._image.compare(first_index + sample.position, images, its_grids)
                num_compared, num_equal = num_compared + compared, num_equal + equal
        return num_compared, num_equal

    def _encode_texts(self, samples: Sequence[Sample]) -> tuple[list[np.ndarray], dict[int, BadSample]]:
        """(ids of every text, why for each sample that has one at which the tokenizer gives up)."""
        found = [
            (number, part.text)
            for number, sample in enumerate(samples)
            for part in sample.parts
            if isinstance(part, TextPart)
        ]
        if not found or self._text is None:
            return [], {}
        ids, offsets, crashed = panics.encode(self._text, [text for _, text in found])
        rows = [ids[start:end] for start, end in itertools.pairwise(offsets.tolist())]
        return rows, {found[row][0]: bad for row, bad in crashed.items()}

    def _spans(
        self, sample: Sample, text_ids: Iterator[np.ndarray], codes: Iterator[np.ndarray]
    ) -> tuple[list[Span], list[RawText], int]:
        """(its spans, its texts where they are kept, how many of the texts are cut)."""
        spans, texts, num_truncated = list[Span](), list[RawText](), 0
        for part in sample.parts:
            if isinstance(part, TextPart) and self._keeps_texts:
                texts.append(RawText(data=part.text.encode(), place=len(spans), role=part.role, loss=part.loss))
            if isinstance(part, TextPart) and self._text is not None:
                ids = next(text_ids)
                kept = ids[: self._block_size]
                num_truncated += len(kept) < len(ids)
                if len(kept):
                    spans.append(Span(kind=Kind.TEXT, ids=kept, role=part.role, loss=part.loss))
            elif isinstance(part, ImagePart) and self._image is not None:
                grid = next(codes)
                spans.append(Span(kind=Kind.IMAGE, ids=grid.ravel(), height=grid.shape[0], width=grid.shape[1]))
        return spans, texts, num_truncated


def load_images(record: Record, options: PixelOptions | None) -> list[np.ndarray]:
    """The pixels of a record's images, in order. Raises BadSample, which names a picture that is a file of its own.

    Behind them comes, where there is something to count, [1] uint8: how many have a profile that is not applied.
    """
    from hpcdata.media import pixels

    if options is None or not isinstance(record, Sample):
        return []
    noted = pixels.Noted() if options.counts_profiles else None
    loaded = [_load(part.blob, options, noted) for part in record.parts if isinstance(part, ImagePart)]
    if noted is not None and noted.unapplied_profiles:
        loaded.append(np.array([min(noted.unapplied_profiles, 255)], np.uint8))
    return loaded


def _load(blob: Blob, options: PixelOptions, noted: Noted | None) -> np.ndarray:
    from hpcdata.media import pixels

    try:
        data = blob.read(max_bytes=options.max_bytes)
        return pixels.load(
            data,
            sizes=options.sizes,
            max_pixels=options.max_pixels,
            jpeg_draft=options.jpeg_draft,
            max_aspect=options.max_aspect,
            rule=options.rule,
            noted=noted,
        )
    except BadSample as bad:
        raise BadSample(bad.reason, f"{blob.name}: {bad.message}" if blob.name else bad.message) from None


def _checked(record: Record, images: list[np.ndarray] | BadSample) -> tuple[Sample, list[np.ndarray]] | BadSample:
    """A sample and its pixels, or why it cannot be encoded."""
    if (bad := refusal(record, None)) is not None:
        return bad
    assert isinstance(record, Sample)
    try:
        for part in record.parts:
            if isinstance(part, TextPart):
                check_text(part.text)
    except BadSample as error:  # as above
        return BadSample(error.reason, error.message)
    return images if isinstance(images, BadSample) else (record, images)


def _cut(
    ids: np.ndarray, offsets: np.ndarray, block_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(ids of texts of at most `block_size` ids, the length of each, which texts were longer or None for none)."""
    lengths = np.diff(offsets)
    if block_size is None or lengths.max() <= block_size:
        return ids, lengths, None
    is_kept = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths) < block_size
    return ids[is_kept], np.minimum(lengths, block_size), lengths > block_size


def _without_ids(batch: Documents, row: int, bad: BadSample | None) -> Reject:
    bad = bad or BadSample(Reason.EMPTY_TEXT, _NO_IDS)
    position = batch.positions[row]
    return Reject(
        position=position,
        key=f"{batch.key_prefix}{position}",
        reason=bad.reason,
        message=bad.message,
        offset=batch.offsets[row],
    )
