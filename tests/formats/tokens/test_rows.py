"""Rows as sequences, against a plain loop: ids, modality, loss and runs.   pytest tests/formats/tokens/test_rows.py"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset
from hpcdata.formats.tokens import rows as rows_module
from hpcdata.formats.tokens.rows import Order, Rule
from hpcdata.samples import Example, Kind, Role, Span
from tests.formats.tokens.exports import SHIFT, sequence
from tests.loading import made
from tests.selection import examples

IDS = st.lists(st.integers(0, 32000), max_size=5)
SPANS = st.one_of(
    st.builds(lambda ids, loss: made.text(*ids, role=Role.USER, loss=loss), IDS, st.booleans()),
    st.lists(st.integers(0, 16383), min_size=1, max_size=5).map(lambda ids: made.image(*ids, height=1, width=len(ids))),
)
CONTROL = st.one_of(st.none(), st.integers(0, 60000))


@pytest.mark.parametrize("compiled", [True, False])
@settings(max_examples=examples(50), deadline=None)
@given(
    rows=st.lists(st.lists(SPANS, max_size=4), min_size=1, max_size=6),
    controls=st.tuples(CONTROL, CONTROL, CONTROL, CONTROL),
    widths=st.sampled_from([("uint16", "uint16"), ("uint16", "int64"), ("int32", "uint16"), ("int32", "int32")]),
)
def test_sequences_are_those_of_a_plain_loop(
    compiled: bool, rows: list[list[Span]], controls: tuple[int | None, ...], widths: tuple[str, str]
) -> None:
    stored, written = widths
    bos, eod, begin, end = controls
    made_of = [Example(index=number, key=f"{number}", spans=tuple(spans)) for number, spans in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(rows_module, "kernels", lambda: None)
        source = made.make_dataset(Path(folder) / "data", made.split(made_of, (1, 0, 2)), id_dtype=stored)
        dataset, count = TokenDataset(source), len(made_of)
        batch = Order(dataset=dataset).rows(np.arange(count), start=0, count=count)
        rule = Rule(dtype=written, image_shift=SHIFT, bos=bos, eod=eod, image_begin=begin, image_end=end)
        found = batch.sequences(rule)
        row, length, mode = found.runs()
        for number, example in enumerate(made_of):
            ids, modality, loss = sequence(example, bos=bos, eod=eod, begin=begin, end=end)
            assert found.of_row(found.ids, number).tolist() == ids
            assert found.of_row(found.modality, number).tolist() == modality
            assert found.of_row(found.loss_mask, number).tolist() == loss
            assert int(length[row == number].sum()) == len(ids)
            kinds = [int(span.kind == Kind.IMAGE) for span in example.spans] or ([0] if ids else [])
            assert mode[row == number].tolist() == [kind for kind, _ in itertools.groupby(kinds)]
        blocks = list(found.blocks(num_bytes=16, room=lambda num_ids: np.empty(num_ids, written)))
        assert np.concatenate(blocks).tolist() == found.ids.tolist()
        assert {block.dtype for block in blocks} == {found.ids.dtype} == {np.dtype(written)}
        assert max(block.nbytes for block in blocks) <= max(16, max(found.lengths) * found.ids.itemsize)
