"""python -m pytest tests/loading/test_packed_batches.py"""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.base import KEYS, PACKED_KEYS
from hpcdata.loading.layouts.named import T2I, BatchCounts, Caption, Interleaved, LiquidT2I, Text
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.order.packing.pieces import rows_of_ranks
from hpcdata.samples import Example
from tests.loading import made
from tests.selection import examples

torch.set_num_threads(1)
SHIFT = 32001
ALL = KEYS + PACKED_KEYS


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Pairs with images of 1, 4 or 9 codes, made once for every size: the plan indices are the rows."""
    found = {}

    def get(num_samples: int) -> TokenDataset:
        if num_samples not in found:
            rng = np.random.default_rng(num_samples)
            examples = []
            for row in range(num_samples):
                texts = made.text(*rng.integers(0, 32000, rng.integers(0, 12)))
                side = int(rng.integers(0, 4))
                images = [made.image(*rng.integers(0, 16384, side * side))] if side else []
                examples.append(Example(index=row, key=str(row), spans=(texts, *images)))
            folder = made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples))
            found[num_samples] = TokenDataset(folder)
        return found[num_samples]

    return get


def ranks(dataset, world_size, **options):
    return [TokenLoader(dataset, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def step_of(loaders) -> dict[str, torch.Tensor]:
    """One step of all ranks, put together."""
    batches = [next(iter(loader)) for loader in loaders]
    names = [name for name in batches[0] if name not in ("cu_seqlens", "max_seqlen")]
    return {name: torch.cat([batch[name] for batch in batches]) for name in names}


def catch_up(canonical, loader) -> None:
    """Past the last steps of an epoch that so many ranks leave out, as they have fewer rows."""
    while (canonical.epoch, canonical.step) != (loader.epoch, loader.step):
        assert len(next(iter(canonical))["input_ids"]) < loader.world_size


def samples_of(batch) -> list[list[int]]:
    """The ids of every segment, in the order of the rows."""
    found = []
    for ids, segments in zip(batch["input_ids"], batch["segment_ids"], strict=True):
        for segment in range(1, int(segments.max()) + 1):
            found.append(ids[segments == segment].tolist())
    return found


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


packings = st.one_of(
    st.builds(
        BestFit,
        length=st.sampled_from([26, 40, 64]),
        window=st.integers(5, 64),
        max_images=st.sampled_from([None, None, 1, 3]),
    ),
    st.builds(Buckets, multiple=st.sampled_from([1, 8]), window=st.integers(5, 64)),
)


@settings(max_examples=examples(40), deadline=None)
@given(
    num_samples=st.sampled_from([70, 113, 200]),
    seed=st.integers(0, 2**40),
    packing=packings,
    drop_last=st.booleans(),
    legs=st.lists(st.tuples(st.sampled_from([1, 2, 3, 6]), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_kills_and_other_world_sizes_lose_and_repeat_nothing(datasets, num_samples, seed, packing, drop_last, legs):
    """Legs of (world size, steps until the kill) see, together, what one uninterrupted process sees."""
    options = {"global_batch_size": 6, "seed": seed, "packing": packing, "drop_last": drop_last}
    options |= {"layout": Caption(max_length=26, keys=ALL)}
    dataset = datasets(num_samples)
    canonical = TokenLoader(dataset, rank=0, world_size=1, **options)
    state = None
    for world_size, num_steps in legs:
        loaders = ranks(dataset, world_size, **options)
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(state))
        for _ in range(num_steps):
            catch_up(canonical, loaders[0])
            expected = next(iter(canonical))
            found = step_of(loaders)
            assert all(torch.equal(found[key], expected[key]) for key in found)
        catch_up(canonical, loaders[0])  # by these ranks, not by the next
        states = {json.dumps(loader.state_dict()) for loader in loaders}
        assert len(states) == 1
        state = states.pop()
        assert len(state) < 1024


@settings(max_examples=examples(30), deadline=None)
@given(
    st.sampled_from([70, 113, 200]), st.integers(0, 99), packings, st.sampled_from([Caption, LiquidT2I, Interleaved])
)
def test_an_epoch_delivers_every_sample_once_and_whole(datasets, num_samples, seed, packing, layout):
    dataset = datasets(num_samples)
    bound = layout(max_length=26, keys=ALL)
    loader = TokenLoader(
        dataset, global_batch_size=4, packing=packing, layout=bound, seed=seed, drop_last=False, num_epochs=1
    )
    batches = list(loader)
    order = [int(index) for batch in batches for index in batch["index"]]
    assert sorted(order) == list(range(num_samples))
    assert len(batches) == len(
        TokenLoader(
            dataset, global_batch_size=4, packing=packing, layout=bound, seed=seed, drop_last=False, num_epochs=1
        )
    )
    single = loader.layout
    draws = loader.stream.draws(0, np.arange(num_samples))
    alone = single.batch(dataset, draws.rows, draws.seeds).arrays
    expected = {int(row): alone["input_ids"][at][alone["attention_mask"][at]] for at, row in enumerate(draws.rows)}
    for batch in batches:
        for row, ids in zip(batch["index"].tolist(), samples_of(batch), strict=True):
            assert ids == expected[row].tolist()
    counts = loader.counts
    assert counts.samples == num_samples
    mask = torch.cat([batch["attention_mask"].reshape(-1) for batch in batches])
    assert counts.text_tokens + counts.image_tokens == int(mask.sum())
    assert counts.padding == int((~mask).sum())


def test_positions_labels_and_segments_by_hand(tmp_path):
    spans = [(made.text(5, 6), made.image(7)), (made.text(8),), (made.text(9, 10, 11),)]
    examples = [Example(index=at, key=str(at), spans=each) for at, each in enumerate(spans)]
    dataset = TokenDataset(made.make_dataset(tmp_path, [examples]))
    loader = TokenLoader(dataset, global_batch_size=2, packing=12, layout=Caption(keys=ALL), shuffle=False)
    batch = next(iter(loader))
    boi, eoi = SHIFT + 16384, SHIFT + 16385
    assert batch["input_ids"].tolist() == [
        [1, boi, SHIFT + 7, eoi, 5, 6, 2, 1, 9, 10, 11, 2],
        [1, 8, 2, *[2] * 9],
    ]
    assert batch["segment_ids"].tolist() == [[1] * 7 + [2] * 5, [1] * 3 + [0] * 9]
    assert batch["position_ids"].tolist() == [[*range(7), *range(5)], [0, 1, 2, *[0] * 9]]
    assert batch["labels"].tolist() == [[*[-100] * 4, 5, 6, 2, -100, 9, 10, 11, 2], [-100, 8, 2, *[-100] * 9]]
    assert batch["modality"].tolist() == [[0, 0, 1, *[0] * 9], [0] * 12]
    assert batch["attention_mask"].tolist() == [[True] * 12, [True] * 3 + [False] * 9]
    assert batch["cu_seqlens"].tolist() == [0, 7, 12, 15, 24]
    assert (batch["cu_seqlens"].dtype, batch["segment_ids"].dtype) == (torch.int32, torch.int32)
    assert int(batch["max_seqlen"]) == 9
    assert batch["index"].tolist() == [0, 2, 1]


@settings(max_examples=examples(25), deadline=None)
@given(st.sampled_from([70, 113]), st.integers(5, 40), st.integers(5, 40), st.integers(0, 9))
def test_concat_delivers_documents_end_to_end(datasets, num_samples, length, window, seed):
    """The pieces of all bins, one after the other, are the texts of the epoch's order, window by window."""
    dataset = datasets(num_samples)
    options = {"packing": Concat(length=length, window=window), "layout": Text(keys=ALL), "seed": seed}
    options |= {"global_batch_size": 2}
    loader = TokenLoader(dataset, **options, drop_last=False, num_epochs=1)
    found, pieces, num_rows = [], 0, 0
    for batch in loader:
        num_rows += len(batch["input_ids"])
        found += batch["input_ids"][batch["attention_mask"]].tolist()
        pieces += int(batch["segment_ids"].max(dim=1).values.sum())
        assert len(batch["index"]) == int(batch["segment_ids"].max(dim=1).values.sum())
    order = loader._steps.stream.draws(0, np.arange(num_samples)).rows
    expected = [[1, *dataset[row].spans[0].ids.tolist(), 2] for row in order.tolist()]
    assert found == list(itertools.chain.from_iterable(expected))
    assert loader.counts.samples == num_samples <= pieces
    windows = [sum(len(ids) for ids in expected[at : at + window]) for at in range(0, num_samples, window)]
    bins = sum(-(-tokens // length) for tokens in windows)
    assert num_rows - bins in (0, bins % 2)  # the last row may have been cut in two, so that there is a whole step
    assert loader.counts.padding == num_rows * length - len(found)


def test_concat_refuses_images(datasets):
    with pytest.raises(UserError, match="images must not be cut"):
        TokenLoader(datasets(70), global_batch_size=2, packing=Concat(length=64), layout="interleaved")


def test_buckets_have_one_grid_a_batch(datasets):
    """UniDisc's columns, with images of several sizes: each batch has one, in its place behind the text."""
    layout = T2I(block_size=10, keys=ALL)
    loader = TokenLoader(
        datasets(200),
        global_batch_size=4,
        packing=Buckets(multiple=1, window=64),
        layout=layout,
        drop_last=False,
        num_epochs=1,
    )
    seen = []
    for batch in loader:
        grids = {int(number) for number in batch["modality"].sum(dim=1)} - {0}
        assert len(grids) <= 1
        if grids:
            assert batch["input_ids"].shape[1] == 10 + grids.pop()
            assert not batch["modality"][:, :10].any()
            assert batch["attention_mask"][: len(batch["index"]), 10:].all()
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(200))


def test_utilisation():
    """At 4096 columns: captions and pairs of one image size, pairs of three sizes, documents."""
    rng = np.random.default_rng(0)
    captions = rng.integers(10, 180, 4096)
    pairs = np.where(rng.random(4096) < 0.5, captions, captions + 258)
    sizes = captions + rng.choice([256, 576, 1024], 4096) + 4
    documents = np.clip(rng.lognormal(6, 1.2, 4096), 8, 4096).astype(np.int64)
    for lengths, least in ((pairs, 0.998), (sizes, 0.99), (documents, 0.998)):
        placement = BestFit(length=4096).place(lengths, np.zeros_like(lengths), 8)
        assert lengths.sum() / (4096 * placement.num_bins) >= least


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=120), st.integers(50, 90), st.integers(1, 8))
def test_placements_hold_every_sample_once(lengths, capacity, bins_per_step):
    lengths = np.array(lengths, np.int64)
    for packing in (BestFit(length=capacity), Buckets(multiple=7), Buckets(multiple=7, rest="pad")):
        placement = packing.place(lengths, lengths % 3, bins_per_step)
        left = np.setdiff1d(np.flatnonzero(lengths), placement.sample)
        assert len(left) == 0 or packing.carries
        assert len(set(placement.sample.tolist())) == len(placement.sample)
        for grid in range(3):  # the last of each, too few for a batch
            of_grid = np.flatnonzero((lengths % 3 == grid) & (lengths > 0))
            waits = left[lengths[left] % 3 == grid]
            assert len(waits) < bins_per_step
            assert waits.tolist() == of_grid[len(of_grid) - len(waits) :].tolist()
        assert placement.first_row[0] == 0
        assert placement.first_row[-1] == len(placement.sample)
        filled = np.append(0, np.cumsum(lengths[placement.sample]))[placement.first_row]
        assert (np.diff(filled) <= placement.width).all()
        if isinstance(packing, Buckets) and packing.carries:
            assert (np.diff(placement.first_row) == 1).all()
        if isinstance(packing, Buckets):
            assert (np.diff(placement.first_row) <= 1).all()
            assert placement.num_bins % bins_per_step == 0
            for width in placement.width.reshape(-1, bins_per_step):
                assert len(set(width.tolist())) == 1
        else:
            firsts = placement.sample[placement.first_row[:-1]]
            assert (np.diff(firsts) > 0).all()


def test_samples_that_are_too_long_are_skipped_and_counted(datasets):
    dataset = datasets(200)
    options = {"global_batch_size": 2, "packing": BestFit(length=10, window=30), "drop_last": False, "num_epochs": 1}
    with pytest.raises(UserError, match="without cutting an image"):
        TokenLoader(dataset, layout="caption", **options)
    loaders = ranks(dataset, 2, layout=Caption(too_long="skip"), **options)
    seen = [int(index) for loader in loaders for batch in loader for index in batch["index"]]
    too_long = [row for row in range(200) if len(dataset[row].spans) > 1 and len(dataset[row].spans[1].ids) > 6]
    assert sorted(seen) == sorted(set(range(200)) - set(too_long))
    counts = loaders[0].counts + loaders[1].counts
    assert (counts.samples, counts.skipped_samples) == (len(seen), len(too_long))
    account = loaders[0].account()[dataset.path.name]
    assert (account.samples, account.skipped_samples, account.epochs) == (len(seen), len(too_long), 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"packing": BestFit(length=40, window=32)},
        {"packing": Concat(length=24, window=32), "layout": "text"},
        {"packing": Buckets(multiple=4, window=64)},
        {"layout": Caption(max_length=26)},
        {"layout": Caption(max_length=26, pad="to_8")},
        {"layout": T2I(block_size=8), "packing": BestFit(length=40)},
        {"layout": Text(max_length=9)},
    ],
)
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_account_is_recomputed_from_the_cursor(datasets, options, drop_last):
    """After any number of steps and epochs, on any world size, it is what the ranks have delivered."""
    dataset = datasets(113)
    loaders = ranks(
        dataset, 3, **{"layout": Caption(max_length=26), "global_batch_size": 6, **options}, drop_last=drop_last
    )
    for _ in range(25):
        for loader in loaders:
            next(iter(loader))
    counts = loaders[0].counts + loaders[1].counts + loaders[2].counts
    (account,) = loaders[1].account().values()
    for name in ("samples", "text_tokens", "image_tokens", "padding"):
        assert getattr(account, name) == getattr(counts, name), name


def test_a_mark_saves_looking_back(datasets, monkeypatch):
    """Restoring packs the window where the state stands, and what the next step needs; nothing before it."""
    options = {"global_batch_size": 2, "packing": BestFit(length=30, window=8), "layout": "caption"}
    loader = TokenLoader(datasets(200), **options)
    for _ in range(20):
        next(iter(loader))
    state = loader.state_dict()
    other = TokenLoader(datasets(200), **options)
    packed = []
    pack = type(other._steps)._pack
    monkeypatch.setattr(type(other._steps), "_pack", lambda self, *at: packed.append(at) or pack(self, *at))
    other.load_state_dict(state)
    assert equal(next(iter(other)), next(iter(loader)))
    mark = state["mark"]
    assert mark[1] > 5
    assert all(window >= mark[1] for _, window in packed)
    assert len(set(packed)) <= 3


def test_a_state_without_a_fitting_mark_looks_back(datasets):
    options = {"global_batch_size": 2, "packing": BestFit(length=30, window=8), "layout": "caption"}
    loader = TokenLoader(datasets(200), **options)
    expected = [next(iter(loader)) for _ in range(20)]
    state = loader.state_dict()
    loader.load_state_dict({**state, "step": 7, "mark": [3, 1, 1]})
    assert equal(next(iter(loader)), expected[7])
    assert equal(loader.batch_at(0, 3), expected[3])
    assert equal(next(iter(loader)), expected[8])


@pytest.mark.parametrize("other", [BestFit(length=30, window=9), BestFit(length=31, window=8), None])
def test_a_state_of_another_packing_is_refused(datasets, other):
    options = {"global_batch_size": 2, "layout": Caption(max_length=26)}
    state = TokenLoader(datasets(200), packing=BestFit(length=30, window=8), **options).state_dict()
    with pytest.raises(UserError, match="saved with packing="):
        TokenLoader(datasets(200), packing=other, **options).load_state_dict(state)


@pytest.mark.parametrize("capacity", [4095, 4096, 4097])
def test_bins_hold_samples_that_fill_them(capacity):
    """Lengths are rounded up for the search only: a sample as long as a bin has its place, and no bin is too full."""
    rng = np.random.default_rng(1)
    lengths = np.concatenate([np.full(5, capacity), rng.integers(1, capacity + 1, 300), [capacity - 1, 0, 1]])
    placement = BestFit(length=capacity).place(lengths, np.zeros_like(lengths), 8)
    assert sorted(placement.sample.tolist()) == np.flatnonzero(lengths).tolist()
    for first, last in itertools.pairwise(placement.first_row.tolist()):
        assert 0 < lengths[placement.sample[first:last]].sum() <= capacity


def test_a_resumed_loader_tells_of_every_earlier_step(datasets):
    """Also of one that begins before the window that the state notes, and ends in it."""

    def make():
        return TokenLoader(datasets(200), global_batch_size=4, layout="caption", packing=BestFit(length=30, window=40))

    loader = make()
    expected = [loader.batch_at(0, step)["index"].tolist() for step in range(20)]
    walking, states = iter(loader), []
    for _ in range(20):
        states.append(loader.state_dict())
        next(walking)
    for at, state in enumerate(states):
        for step in range(at):
            resumed = make()
            resumed.load_state_dict(state)
            assert resumed.batch_at(0, step)["index"].tolist() == expected[step], (at, step)
            assert resumed.rows(0, step).tolist() == make().rows(0, step).tolist(), (at, step)


@pytest.fixture(scope="module")
def albums(tmp_path_factory) -> TokenDataset:
    """Samples of a text and none to four images of four codes."""
    rng = np.random.default_rng(9)
    examples = []
    for row in range(150):
        spans = [made.text(*rng.integers(0, 32000, rng.integers(1, 12)))]
        spans += [made.image(*rng.integers(0, 16384, 4)) for _ in range(rng.integers(0, 5))]
        examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made") / "albums", made.split(examples)))


def test_rows_have_no_more_images_than_they_may(albums):
    """And hold every sample once, as one row each without the second budget would."""
    options = {"global_batch_size": 2, "layout": Interleaved(max_length=64), "drop_last": False, "num_epochs": 1}
    most, seen = [], []
    for max_images in (None, 4):
        packing = BestFit(length=64, window=50, max_images=max_images)
        loader = TokenLoader(albums, packing=packing, **options)
        batches = list(loader)
        most.append(max(int(n) // 4 for batch in batches for n in batch["modality"].sum(dim=1)))
        seen.append(sorted(index for batch in batches for index in batch["index"].tolist()))
    assert most[0] > most[1] == 4
    assert seen == [list(range(150))] * 2


@pytest.mark.parametrize("drop_last", [True, False])
def test_samples_with_more_images_than_a_row_are_refused_or_skipped_and_counted(albums, drop_last):
    options = {"global_batch_size": 4, "packing": BestFit(length=64, window=50, max_images=3), "drop_last": drop_last}
    too_many = [row for row in range(150) if len(albums[row].spans) > 4]
    with pytest.raises(
        UserError, match=r"has 4 images, a packed row may have 3: use a greater max_images, or too_long"
    ):
        list(TokenLoader(albums, layout=Interleaved(max_length=64), **options, num_epochs=1))
    layout = Interleaved(max_length=64, too_long="skip")
    loaders = ranks(albums, 4, layout=layout, **options)
    seen = []
    while loaders[0].epoch == 0:
        seen += step_of(loaders)["index"].tolist()
    counts = sum((loader.counts for loader in loaders), BatchCounts())
    (account,) = loaders[2].account().values()
    for name in ("samples", "text_tokens", "image_tokens", "padding", "skipped_samples"):
        assert getattr(account, name) == getattr(counts, name), name
    assert not set(seen) & set(too_many)
    if not drop_last:
        assert sorted(seen + too_many) == list(range(150))
        assert counts.skipped_samples == len(too_many)


def test_images_that_a_layout_leaves_out_do_not_count(albums):
    options = {"global_batch_size": 2, "layout": "text", "seed": 1}
    one, other = (
        TokenLoader(albums, packing=BestFit(length=64, window=50, max_images=most), **options) for most in (None, 1)
    )
    assert all(equal(next(iter(one)), next(iter(other))) for _ in range(5))


def test_two_budgets_resume_on_any_world_size(albums):
    options = {"global_batch_size": 12, "layout": Interleaved(max_length=64, too_long="skip"), "drop_last": False}
    options |= {"packing": BestFit(length=64, window=50, max_images=3)}
    (canonical,) = ranks(albums, 1, **options)
    state = canonical.state_dict()
    for world_size in (4, 3, 1, 12, 2):
        loaders = ranks(albums, world_size, **options)
        for loader in loaders:
            loader.load_state_dict(json.loads(json.dumps(state)))
        for _ in range(3):
            catch_up(canonical, loaders[0])
            found, expected = step_of(loaders), next(iter(canonical))
            assert all(torch.equal(found[key], expected[key]) for key in found)
        catch_up(canonical, loaders[0])
        state = loaders[-1].state_dict()
        assert state == canonical.state_dict()
    assert state["settings"]["packing"] == "BestFit(length=64, window=50, cuts=False, max_images=3)"
    other = TokenLoader(albums, **{**options, "packing": BestFit(length=64, window=50)})
    with pytest.raises(UserError, match="saved with packing="):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("packing", "layout"),
    [
        (BestFit(length=40, window=64, balance="squares"), Caption(max_length=26)),
        (BestFit(length=40, window=10, max_images=4, balance="squares"), Caption(max_length=26)),
        (Concat(length=24, window=32, balance="squares"), Text(max_length=26)),
    ],
)
def test_balanced_ranks_share_the_rows_of_the_same_steps(datasets, packing, layout):
    """Each has as many rows, in their order; state, resuming and account are those of any number of ranks."""
    dataset = datasets(300)
    options = {"global_batch_size": 6, "packing": packing, "layout": layout, "num_epochs": 2}
    (canonical,) = ranks(dataset, 1, **options)
    sizes, differs, state = itertools.cycle((2, 3, 6)), False, canonical.state_dict()
    for step, batch in enumerate(canonical):
        if step % 4 == 0:
            loaders = ranks(dataset, next(sizes), **options)
            for loader in loaders:
                loader.load_state_dict(json.loads(json.dumps(state)))
        shares, state = [next(iter(loader)) for loader in loaders], canonical.state_dict()
        assert all(loader.state_dict() == state for loader in loaders)
        expected = [row.tolist() for row in batch["input_ids"]]
        found = [[row.tolist() for row in share["input_ids"]] for share in shares]
        places = [[expected.index(row) for row in rows] for rows in found]
        assert sorted(itertools.chain(*places)) == list(range(6))
        assert all(rows == sorted(rows) and len(rows) == 6 // len(loaders) for rows in places)
        differs |= list(itertools.chain(*places)) != list(range(6))
    assert differs
    assert loaders[0].account() == canonical.account()
    (plain,) = ranks(dataset, 1, **{**options, "packing": type(packing)(length=packing.length, window=packing.window)})
    with pytest.raises(UserError, match="balance"):
        plain.load_state_dict(state)


@pytest.mark.parametrize(
    ("packing", "layout"),
    [
        (BestFit(length=40, window=64, balance="squares"), Caption(max_length=26)),
        (Concat(length=24, window=32, balance="squares"), Text(max_length=26)),
    ],
)
def test_the_last_smaller_step_is_balanced_too(datasets, packing, layout):
    options = {"global_batch_size": 48, "packing": packing, "layout": layout, "num_epochs": 1, "drop_last": False}
    dataset = datasets(300)
    (canonical,) = ranks(dataset, 1, **options)
    *_, last = canonical
    rows = [row.tolist() for row in last["input_ids"]]
    assert len(rows) <= 48
    for world_size in (2, 3, 4):
        loaders = ranks(dataset, world_size, **options)
        *_, shares = zip(*loaders, strict=True)
        places = [[rows.index(row) for row in share["input_ids"].tolist()] for share in shares]
        assert sorted(itertools.chain(*places)) == list(range(len(rows)))
        assert max(map(len, places)) - min(map(len, places)) <= 1
        edges = last["cu_seqlens"].tolist()
        segment = last["segment_ids"].reshape(-1)
        costs = np.zeros(len(rows))
        for start, stop in itertools.pairwise(edges):
            costs[start // packing.length] += (stop - start) ** 2 * bool(segment[start])
        assert places == [of_rank.tolist() for of_rank in rows_of_ranks(costs.astype(int), world_size)]
