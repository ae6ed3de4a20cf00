"""Documents in bulk become what single samples become.   pytest tests/encoders/test_examples.py"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.counts import Sizes
from hpcdata.encoders.examples import BatchEncoder, PreparedBatch
from hpcdata.samples import Documents, Reason, Record, Reject, Sample, TextPart
from hpcdata.tables import to_columns


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
    prepared = PreparedBatch(records=records, pixels=[[] for _ in records])
    single = encoder.encode(prepared, first_index=1000, source="a.jsonl")
    assert bulk.counts() == single.counts()
    assert list(bulk.rejects) == list(single.rejects)
    start = Sizes(tokens=5, spans=6, samples=7, keys=8)
    (columns, *rest), (expected, *others) = (to_columns(each.rows(), "uint16", start) for each in (bulk, single))
    assert rest == others
    assert {path: (values.dtype, values.tolist()) for path, values in columns.items()} == {
        path: (values.dtype, values.tolist()) for path, values in expected.items()
    }
