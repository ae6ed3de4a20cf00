"""Examples as the arrays that are stored: one batch of records in, rows of every column out."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.base import digest
from hpcdata.samples import Example, Kind, Span
from hpcdata.shards.counts import Counts, count_batch
from hpcdata.shards.made import Before, Laid
from hpcdata.shards.raw_texts.columns import RawTexts, keeps_texts
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.schema import Schema


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """What encoding made of consecutive samples: examples and reject rows, each in the order of the plan."""

    examples: Sequence[Example]
    rejects: Sequence[RejectRow] = ()
    truncated: Sequence[int] = ()
    """Of each example, how many of its texts are cut; nothing for none."""
    compared_codes: int = 0
    equal_codes: int = 0
    unapplied_profiles: Sequence[int] = ()
    """Of each example, how many of its pictures have a color profile that is not applied; nothing for none."""
    fixed: Sequence[bool] = ()
    """Of each example, whether it got markers of its pictures; nothing for none."""

    def rows(self) -> Rows:
        spans = [span for example in self.examples for span in example.spans]
        return Rows(
            index=np.array([example.index for example in self.examples], "<i8"),
            keys=[example.key.encode() for example in self.examples],
            num_spans=np.array([len(example.spans) for example in self.examples], "<i4"),
            lengths=np.array([len(span.ids) for span in spans], "<i4"),
            grid=np.array([(span.height, span.width) for span in spans], "<i4").reshape(-1, 2),
            kind=np.array([span.kind for span in spans], "u1"),
            flags=np.array([span.flags for span in spans], "u1"),
            ids=np.concatenate([span.ids for span in spans]) if spans else np.zeros(0, "<i4"),
        )

    def written(self) -> list[tuple[int, str]]:
        return [(example.index, example.key) for example in self.examples]

    def only(self, indices: Container[int]) -> EncodedBatch:
        """Without what was compared, which is of the whole batch."""
        kept = [number for number, example in enumerate(self.examples) if example.index in indices]
        return EncodedBatch(
            examples=[self.examples[number] for number in kept],
            truncated=[self.truncated[number] for number in kept] if self.truncated else (),
            unapplied_profiles=[self.unapplied_profiles[number] for number in kept] if self.unapplied_profiles else (),
            fixed=[self.fixed[number] for number in kept] if self.fixed else (),
        )

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        texts = RawTexts.of([example.texts for example in self.examples]) if keeps_texts(schema) else None
        return lay_out(self.rows(), schema, before, texts)

    def counts(self) -> Counts:
        spans = [span for example in self.examples for span in example.spans]
        images = [span for span in spans if span.kind == Kind.IMAGE]
        image_tokens = sum(len(span.ids) for span in images)
        return count_batch(
            len(self.examples),
            self.rejects,
            truncated_texts=sum(self.truncated),
            text_tokens=sum(len(span.ids) for span in spans) - image_tokens,
            image_tokens=image_tokens,
            images=len(images),
            compared_codes=self.compared_codes,
            equal_codes=self.equal_codes,
            unapplied_profiles=sum(self.unapplied_profiles),
            fixed_placeholders=sum(self.fixed),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedDocuments:
    """The same for documents in bulk: each example is one span of text, the ids of all lie end to end.

    index: [num_examples] int64, index in the plan; lengths: [num_examples]; ids: [sum of lengths], any integer dtype.
    Where a run has no text tokenizer, and keeps the texts alone, lengths are 0 and there are no spans.
    """

    index: np.ndarray
    keys: list[bytes]
    lengths: np.ndarray
    ids: np.ndarray
    rejects: Sequence[RejectRow] = ()
    truncated: np.ndarray | None = None
    """[num_examples] bool: whose text is cut; None for none."""
    texts: Sequence[bytes] | None = None
    """Of each example its text in UTF-8, where the run keeps it."""

    def rows(self) -> Rows:
        lengths, span = self.lengths[self.lengths > 0], Span(kind=Kind.TEXT, ids=self.ids)
        number = len(lengths)
        return Rows(
            index=self.index,
            keys=self.keys,
            num_spans=(self.lengths > 0).astype("<i4"),
            lengths=lengths,
            grid=np.full((number, 2), (span.height, span.width), "<i4"),
            kind=np.full(number, span.kind, "u1"),
            flags=np.full(number, span.flags, "u1"),
            ids=self.ids,
        )

    def counts(self) -> Counts:
        num_cut = 0 if self.truncated is None else int(np.count_nonzero(self.truncated))
        return count_batch(len(self.index), self.rejects, truncated_texts=num_cut, text_tokens=len(self.ids))

    def written(self) -> list[tuple[int, str]]:
        return [(index, key.decode()) for index, key in zip(self.index.tolist(), self.keys, strict=True)]

    def only(self, indices: Container[int]) -> EncodedDocuments:
        kept = np.array([index in indices for index in self.index.tolist()], bool)
        return EncodedDocuments(
            index=self.index[kept],
            keys=[key for key, is_kept in zip(self.keys, kept, strict=True) if is_kept],
            lengths=self.lengths[kept],
            ids=self.ids[np.repeat(kept, self.lengths)],
            truncated=None if self.truncated is None else self.truncated[kept],
            texts=None if self.texts is None else list(itertools.compress(self.texts, kept)),
        )

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        texts = None if self.texts is None else RawTexts.of_documents(self.texts)
        return lay_out(self.rows(), schema, before, texts)


Encoded = EncodedBatch | EncodedDocuments


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Examples end to end: a row of `index`, `keys` and `num_spans` each, and of the others for each of their spans."""

    index: np.ndarray
    keys: list[bytes]
    num_spans: np.ndarray
    lengths: np.ndarray
    grid: np.ndarray
    kind: np.ndarray
    flags: np.ndarray
    ids: np.ndarray


def lay_out(rows: Rows, schema: Schema, before: Before, texts: RawTexts | None = None) -> Laid:
    """Rows of every column, and the content digest of the examples. texts: those of a schema that keeps them.

    Raises OverflowError when an id does not fit the dtype: ids never wrap.
    """
    start = before.rows
    _check_range(rows.ids, next(column.dtype for column in schema.columns if column.table == "tokens"))
    token_ends = np.concatenate([[0], np.cumsum(rows.lengths, dtype="<i8")])
    first_span = np.concatenate([[0], np.cumsum(rows.num_spans, dtype="<i8")])
    first_key = np.concatenate([[0], np.cumsum([len(key) for key in rows.keys], dtype="<i8")])
    values = {
        "tokens/ids.memmap": rows.ids,
        "spans/length.memmap": rows.lengths,
        "spans/kind.memmap": rows.kind,
        "spans/grid.memmap": rows.grid,
        "spans/flags.memmap": rows.flags,
        "samples/index.memmap": rows.index,
        "samples/first_token.memmap": token_ends[first_span[:-1]] + start["tokens"],
        "samples/first_span.memmap": first_span[:-1] + start["spans"],
        "samples/num_spans.memmap": rows.num_spans,
        "samples/first_key.memmap": first_key[:-1] + start["keys"],
        "keys/bytes.memmap": np.frombuffer(b"".join(rows.keys), "u1"),
        **(texts.columns(start) if texts else {}),
    }
    content = digest.sum_examples(
        num_spans=rows.num_spans,
        spans=np.column_stack([rows.kind, rows.flags, rows.grid, rows.lengths]),
        num_ids=np.diff(token_ends[first_span]),
        ids=rows.ids,
        behind=texts.hashed() if texts else None,
    )
    kept = {column.path: values[column.path].astype(column.dtype, copy=False) for column in schema.columns}
    return Laid(columns=kept, content=content)


def _check_range(ids: np.ndarray, id_dtype: str) -> None:
    limit = np.iinfo(id_dtype).max
    if len(ids) and (ids.min() < 0 or ids.max() > limit):
        raise OverflowError(f"ids from {ids.min()} to {ids.max()} do not fit {id_dtype} (0 to {limit})")
