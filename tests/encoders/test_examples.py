"""Batches of examples; documents in bulk become what single samples become.   pytest tests/encoders/test_examples.py"""

from __future__ import annotations

import functools
import gc
import io
import threading
import weakref
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata.encoders import examples
from hpcdata.encoders.examples import BatchEncoder, PixelOptions
from hpcdata.samples import Blob, Documents, ImagePart, PreparedBatch, Reason, Record, Reject, Sample, TextPart
from hpcdata.shards.columns import token_schema
from hpcdata.shards.made import Before
from hpcdata.work.preparing import decoding_threads, prepare_batches


class OneForEachX:
    """A tokenizer that sees nothing but the letter x."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        lengths = [text.count("x") for text in texts]
        return np.arange(sum(lengths), dtype=np.int32), np.cumsum([0, *lengths])

    def decode(self, ids: Iterable[int]) -> str:
        return "x" * len(list(ids))


@given(rows=st.lists(st.text("xy", max_size=6) | st.none(), max_size=12), block_size=st.sampled_from([None, 1, 3]))
@settings(deadline=None)
@pytest.mark.parametrize("first", [0, 70])
def test_documents_in_bulk_become_what_samples_become(rows, block_size, first):
    """None stands for a record that is none; texts without an x become no ids."""
    records: list[Record] = []
    for position, text in enumerate(rows, first):
        where = {"position": position, "key": f"a.jsonl#{position}", "offset": 10 * position}
        if text is None:
            records.append(Reject(**where, reason=Reason.BAD_JSON, message="not JSON"))
        else:
            records.append(Sample(**where, parts=(TextPart(text=text),)))
    samples = [record for record in records if isinstance(record, Sample)]
    documents = Documents(
        key_prefix="a.jsonl#",
        positions=[sample.position for sample in samples],
        texts=[text for text in rows if text is not None],
        offsets=[sample.offset for sample in samples],
        rejects=[record for record in records if isinstance(record, Reject)],
    )
    encoder = BatchEncoder(text=OneForEachX(), image=None, block_size=block_size)
    bulk = encoder.encode(documents, first_index=1000, source="a.jsonl")
    prepared = PreparedBatch(records=records, prepared=[[] for _ in records])
    single = encoder.encode(prepared, first_index=1000, source="a.jsonl")
    assert bulk.counts() == single.counts()
    assert list(bulk.rejects) == list(single.rejects)
    schema, start = token_schema("uint16"), Before(rows={"tokens": 5, "spans": 6, "samples": 7, "keys": 8})
    laid, expected = (each.lay_out(schema, start) for each in (bulk, single))
    assert laid.content == expected.content
    assert {path: (values.dtype, values.tolist()) for path, values in laid.columns.items()} == {
        path: (values.dtype, values.tolist()) for path, values in expected.columns.items()
    }
    assert bulk.written() == single.written()
    some = {index for index, _ in bulk.written()[::2]}
    assert bulk.only(some).counts() == single.only(some).counts()


def test_a_batch_with_rejects_is_freed_at_once():
    """Tracebacks of what was wrong with its samples would hold all its pixels until the next garbage collection."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    parts = [
        (TextPart(text="x"), ImagePart(blob=Blob(path="", data=file.getvalue()))),
        (TextPart(text="x"), ImagePart(blob=Blob(path="", data=b"no picture"))),
        (TextPart(text="\ud800"), ImagePart(blob=Blob(path="", data=file.getvalue()))),
    ]
    records = [Sample(position=row, key=str(row), parts=parts[row]) for row in range(3)]
    options = PixelOptions(sizes=((8, 8),), max_pixels=64, max_bytes=1000, jpeg_draft=False)
    prepare = functools.partial(examples.load_images, options=options)
    gc.disable()
    try:
        with decoding_threads(2) as threads:
            (batch,) = prepare_batches(records, batch_size=3, threads=threads, prepare=prepare)
        encoded = BatchEncoder(text=OneForEachX(), image=None, block_size=None).encode(
            batch, first_index=0, source="a.tar"
        )
        assert [row.reason for row in encoded.rejects] == [Reason.UNREADABLE_IMAGE, Reason.UNREADABLE_TEXT]
        pixels = weakref.ref(batch.prepared[0][0])
        del batch, encoded
        assert pixels() is None
    finally:
        gc.enable()


def test_nothing_more_is_decoded_behind_an_error(monkeypatch):
    """A crash in it would be taken for one of the next shard."""
    begun, may_go_on = [], threading.Event()

    def load(record, options):
        begun.append(record.position)
        if record.position:
            may_go_on.wait(10)
            return []
        raise MemoryError

    monkeypatch.setattr(examples, "load_images", load)
    records = [Sample(position=row, key=str(row), parts=()) for row in range(30)]
    options = PixelOptions(sizes=((8, 8),), max_pixels=64, max_bytes=1000, jpeg_draft=False)
    prepare = functools.partial(examples.load_images, options=options)
    with decoding_threads(1) as threads:
        with pytest.raises(MemoryError):
            list(prepare_batches(records, batch_size=8, threads=threads, prepare=prepare))
        may_go_on.set()
    assert begun in ([0], [0, 1])
