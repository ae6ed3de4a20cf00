"""python -m pytest tests/loading/test_widths.py

The longest samples of steps, found without lining all of them up.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.dataset import parts
from hpcdata.loading.layouts.named import SFT, Caption, Interleaved, LiquidT2I, Text
from hpcdata.loading.selecting import select
from hpcdata.loading.widths import longest_of_steps, widths_of_steps
from hpcdata.order.draws import Draws
from hpcdata.samples import Example, Role
from tests.loading import made

LAYOUTS = [
    Text(max_length=30, pad="batch_max"),
    Text(max_length=9, pad="batch_max", add_eos=False),
    LiquidT2I(max_length=60, pad="to_8", unconditional_share=0.5),
    Caption(max_length=60, pad="batch_max"),
    Interleaved(max_length=30, pad="batch_max", too_long="skip"),
    SFT(max_length=25, pad="batch_max", too_long="skip"),
    SFT(max_length=90, pad="batch_max", template="unidisc"),
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[bool, TokenDataset]:
    """Texts, pairs and conversations of one to five spans in five parts; and half of them."""
    rng = np.random.default_rng(5)
    examples = []
    for row in range(64):
        role = Role.USER if row % 4 == 3 else Role.NONE
        spans = [made.text(*rng.integers(0, 32000, rng.geometric(0.2)), role=role)]
        if role == Role.USER:
            spans += [made.text(5, 6, 7, role=Role.ASSISTANT), made.text(8, role=Role.USER, loss=False)] * (row % 3)
        else:
            spans += [made.image(*rng.integers(0, 16384, 36 if row % 21 == 0 else 4)) for _ in range(row % 3 == 0)]
        examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
    whole = TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples)))
    return {False: whole, True: select(whole, lambda columns: columns["index"] % 2 == 0)}


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), is_part=st.booleans())
@settings(max_examples=6, deadline=None)
def test_they_are_those_of_all_samples(datasets, layout, seed, sizes, is_part):
    dataset, rng = datasets[is_part], np.random.default_rng(seed)
    bound, edges = layout.bind(dataset.manifest), np.cumsum([0, *sizes])
    rows = rng.integers(0, len(dataset), edges[-1])
    draws = Draws(rows=rows, source=np.zeros_like(rows), make_seeds=lambda: rows.astype(np.uint64) * 7)
    lengths = bound.lineup(dataset.spans(rows), bound.seeds_of(draws)).length
    expected = [lengths[start:stop].max() for start, stop in itertools.pairwise(edges)]
    assert longest_of_steps(dataset, bound, draws, edges).tolist() == expected
    widths = [bound.width(np.array([length])) for length in expected]
    for some in (1, 3, 512):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hpcdata.loading.widths._SOME", some)
            assert widths_of_steps(dataset, bound, draws.take, np.arange(edges[-1]), edges) == widths


def test_a_step_whose_first_samples_are_as_long_as_any_may_be_is_looked_at_no_further(datasets, monkeypatch):
    monkeypatch.setattr("hpcdata.loading.widths._SOME", 4)
    rows, drawn = np.arange(64), []

    def draws(positions: np.ndarray) -> Draws:
        drawn.append(len(positions))
        return Draws(rows=positions, source=positions, make_seeds=lambda: positions)

    for layout, expected in ((Text(max_length=3, pad="batch_max"), [4]), (Text(max_length=99, pad="to_128"), [4])):
        bound = layout.bind(datasets[False].manifest)
        widths_of_steps(datasets[False], bound, draws, rows, np.array([0, 64]))
        assert drawn == expected
        drawn.clear()


def test_few_samples_are_lined_up(datasets, monkeypatch):
    looked_up = []
    find = TokenDataset.spans
    monkeypatch.setattr(TokenDataset, "spans", lambda self, rows: looked_up.append(len(rows)) or find(self, rows))
    rows = np.arange(64)
    draws = Draws(rows=rows, source=rows, make_seeds=lambda: rows)
    layout = Text(max_length=400).bind(datasets[False].manifest)
    longest_of_steps(datasets[False], layout, draws, np.array([0, 64]))
    assert sum(looked_up) <= 20


@pytest.mark.parametrize("is_part", [False, True])
def test_numbers_of_ids_and_spans_are_those_of_the_samples(datasets, is_part):
    dataset = datasets[is_part]
    rows = np.random.default_rng(0).permutation(len(dataset))
    examples = [dataset[row] for row in rows]
    assert dataset.num_ids(rows).tolist() == [sum(len(span.ids) for span in example.spans) for example in examples]
    assert dataset.num_spans(rows).tolist() == [len(example.spans) for example in examples]
    assert not len(dataset.num_ids(rows[:0]))
    assert not len(dataset.num_spans(rows[:0]))
    with pytest.raises(IndexError, match="of a dataset of"):
        dataset.num_ids(np.array([-1]))


def test_parts_that_cannot_be_mapped_at_once_are_looked_up_in_turn(datasets, monkeypatch):
    monkeypatch.setattr(parts, "MAX_MAPS", 2 * 9 * 2)
    path, rows = datasets[False].path, np.random.default_rng(0).permutation(64)
    few, whole = TokenDataset(path), datasets[False]
    assert few.maps.max_open == 2
    opened = []
    of_parts = parts.PartMaps._open
    monkeypatch.setattr(parts.PartMaps, "_open", lambda self, new: opened.append(len(new)) or of_parts(self, new))
    table, wanted = few.spans(rows), whole.spans(rows)
    for name in ("index", "row", "kind", "length", "part", "first_token", "place", "flags", "height", "width"):
        assert np.array_equal(getattr(table, name), getattr(wanted, name)), name
    assert np.array_equal(few.num_ids(rows), whole.num_ids(rows))
    assert np.array_equal(few.num_spans(rows), whole.num_spans(rows))
    assert max(opened) == 2


def test_parts_that_were_looked_up_ahead_are_still_mapped_when_they_are_copied(tmp_path, monkeypatch):
    """So each is opened once an epoch, where every sample is a part of its own."""
    folder = made.make_dataset(tmp_path / "dataset", [[example] for example in made.pairs(64)])
    monkeypatch.setattr(parts, "MAX_MAPS", 2 * 9 * 8)
    opened, map_file = [], parts.map_file
    monkeypatch.setattr(parts, "map_file", lambda path, *args, **kw: opened.append(path) or map_file(path, *args, **kw))
    loader = TokenLoader(folder, global_batch_size=2, layout=Caption(max_length=40), num_epochs=1)
    assert loader.dataset.maps.max_open == 8
    assert len(list(loader)) == 32
    assert len(set(opened)) == len(opened)
