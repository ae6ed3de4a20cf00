"""python -m pytest tests/loading/test_every_rank_has_rows.py

However samples are packed, no rank is ever without a row, no row without labels, and nothing is lost unseen.
"""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Caption, Text
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.samples import Example
from tests.loading import made
from tests.selection import examples

torch.set_num_threads(1)
NUM_SAMPLES = 80


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    """Texts, most with an image of 1, 4 or 9 codes, which are rarer the larger they are; some are too long."""
    rng = np.random.default_rng(5)
    examples = []
    for row in range(NUM_SAMPLES):
        side = int(rng.choice(4, p=[0.3, 0.5, 0.15, 0.05]))
        images = [made.image(*rng.integers(0, 16384, side * side))] if side else []
        spans = (made.text(*rng.integers(0, 32000, rng.integers(1, 12))), *images)
        examples.append(Example(index=row, key=str(row), spans=spans))
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples)))


packings = st.one_of(
    st.builds(
        BestFit,
        length=st.sampled_from([26, 40, 200]),
        window=st.integers(1, 150),
        max_images=st.sampled_from([None, None, 2]),
    ),
    st.builds(Buckets, multiple=st.sampled_from([1, 8]), window=st.integers(1, 150)),
    st.builds(
        Concat,
        length=st.sampled_from([8, 26, 40, 200]),
        window=st.integers(1, 150),
        multiple=st.sampled_from([None, 2]),
    ),
)


@settings(max_examples=examples(12), deadline=None)
@given(packings, st.booleans(), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 99), st.data())
def test_every_rank_has_rows_in_every_step(dataset, packing, drop_last, world_size, seed, data):
    """Also where a run went on from any step, saved by another number of ranks."""
    layout = Text(max_length=200) if isinstance(packing, Concat) else Caption(max_length=22, too_long="skip")
    options = {"global_batch_size": 12, "seed": seed, "packing": packing, "drop_last": drop_last, "num_epochs": 1}
    options |= {"layout": layout}
    try:
        loaders = [TokenLoader(dataset, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    except UserError as error:
        assert "too few rows" in str(error) or "less than one global batch" in str(error)  # noqa: PT017
        return
    whole = list(TokenLoader(dataset, rank=0, world_size=1, **options))
    shares = [list(loader) for loader in loaders]
    assert len({len(of_rank) for of_rank in shares}) == 1
    for step, expected in itertools.zip_longest(zip(*shares, strict=True), whole):
        if step is None:  # it is the end, and there were not enough rows
            assert not drop_last
            assert len(expected["input_ids"]) < world_size
            continue
        sizes = [len(share["input_ids"]) for share in step]
        assert max(sizes) - min(sizes) <= 1 <= min(sizes)
        assert all((share["labels"] != -100).any(dim=1).all() for share in step)
        assert all((share["segment_ids"] > 0).any(dim=1).all() for share in step)
        assert torch.equal(torch.cat([share["input_ids"] for share in step]), expected["input_ids"])
    assert all(len(batch["input_ids"]) == 12 for batch in (whole if drop_last else whole[:-4]))
    seen = [int(index) for of_rank in shares for batch in of_rank for index in batch["index"]]
    (account,) = loaders[0].account().values()
    assert account.samples + account.skipped_samples + account.dropped_samples == NUM_SAMPLES
    if not isinstance(packing, Concat):
        assert len(seen) == len(set(seen)) == account.samples
        assert account.skipped_samples + account.dropped_samples == NUM_SAMPLES - len(seen)
        assert drop_last or world_size > 1 or account.dropped_samples == 0
    _goes_on(dataset, options, whole, data.draw(st.integers(0, len(whole) - 1)), world_size)


def _goes_on(dataset, options, whole, step: int, world_size: int) -> None:
    """A state of one rank, saved before `step`, on the others."""
    first = TokenLoader(dataset, rank=0, world_size=1, **options)
    for _ in itertools.islice(first, step):
        pass
    state = json.loads(json.dumps(first.state_dict()))
    loaders = [TokenLoader(dataset, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for loader in loaders:
        loader.load_state_dict(state)
    batches = zip(*loaders, strict=True)
    for expected in whole[step:]:
        if len(expected["input_ids"]) >= world_size:
            assert torch.equal(torch.cat([share["input_ids"] for share in next(batches)]), expected["input_ids"])
    assert next(batches, None) is None


def test_buckets_are_full():
    """Pictures of 18 shapes of about 256 codes with captions, 64 to a step: less than 5 % is padding."""
    rng = np.random.default_rng(0)
    shapes = [(16 + d, 16 - d + e) for d in range(-4, 5) for e in (0, 1)]
    grids = rng.integers(0, len(shapes), 50_000)
    lengths = np.array([height * width for height, width in shapes])[grids] + rng.integers(10, 80, len(grids))
    waiting, used, room = np.zeros(0, np.int64), 0, 0
    packing = Buckets(multiple=8, window=10_000)
    for start in range(0, len(grids), packing.window):
        of_window = np.concatenate([waiting, np.arange(start, start + packing.window)])
        bins = packing.place(lengths[of_window], grids[of_window], 64)
        assert len(bins.sample) == bins.num_bins
        used, room = used + int(lengths[of_window[bins.sample]].sum()), room + int(bins.width.sum())
        waiting = np.setdiff1d(of_window, of_window[bins.sample])
        assert len(waiting) < 64 * len(shapes)
    assert used / room > 0.95


def test_a_rare_shape_waits_for_many_windows(dataset):
    """A resumed loader finds what waits: far back, and in the order in which it came."""
    options = {"global_batch_size": 4, "packing": Buckets(multiple=1, window=3), "layout": Caption(max_length=22)}
    options |= {"num_epochs": 1, "seed": 3}
    expected = list(TokenLoader(dataset, **options))
    grids = {tuple(sorted(set(batch["modality"].sum(dim=1).tolist()))) for batch in expected}
    assert {(0,), (1,), (4,), (9,)} >= grids > {(0,), (1,)}
    walking = TokenLoader(dataset, **options)
    for at, _ in enumerate(walking):
        resumed = TokenLoader(dataset, **options)
        state = json.loads(json.dumps(walking.state_dict()))
        assert len(json.dumps(state)) < 1024
        assert state == walking.state_dict()
        resumed.load_state_dict(state)
        rest = list(resumed)
        assert len(rest) == len(expected) - at - 1
        for found, wanted in zip(rest, expected[at + 1 :], strict=True):
            assert torch.equal(found["input_ids"], wanted["input_ids"])


def test_a_state_of_padded_buckets_goes_on_with_them_and_is_refused_by_others(dataset):
    options = {"global_batch_size": 4, "layout": Caption(max_length=22)}
    old = TokenLoader(dataset, packing=Buckets(multiple=8, window=60, rest="pad"), **options)
    next(iter(old))
    state = old.state_dict()
    assert state["settings"]["packing"] == "Buckets(multiple=8, window=60, cuts=False, length=None)"
    with pytest.raises(UserError, match=r"rest of Buckets was 'pad', is 'carry'\): restore rest"):
        TokenLoader(dataset, packing=Buckets(multiple=8, window=60), **options).load_state_dict(state)
    again = TokenLoader(dataset, packing=Buckets(multiple=8, window=60, rest="pad"), **options)
    again.load_state_dict(state)
    assert torch.equal(next(iter(again))["input_ids"], next(iter(old))["input_ids"])


def test_what_the_rest_may_be():
    with pytest.raises(UserError, match="rest='drop', expected carry or pad"):
        Buckets(rest="drop")
