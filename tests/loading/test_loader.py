"""python -m pytest tests/loading/test_loader.py"""

import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import T2I, Caption, Text
from hpcdata.loading.token_streams import Mixture, Source
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.samples import Example
from tests.loading import made
from tests.selection import examples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Datasets of any size, made once: what is loaded is the plan indices 0, 3, 6..."""
    made_datasets = {}

    def get(num_samples: int) -> TokenDataset:
        if num_samples not in made_datasets:
            parts = made.split(made.pairs(num_samples, grid=1, max_text=3))
            layout = {**made.LAYOUT, "resolution": 16}
            folder = made.make_dataset(tmp_path_factory.mktemp("made"), parts, layout=layout)
            made_datasets[num_samples] = TokenDataset(folder)
        return made_datasets[num_samples]

    return get


def ranks(dataset, world_size, **options):
    return [TokenLoader(dataset, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def global_batch(loaders) -> list[int]:
    """One step of all ranks: the plan indices in the canonical order."""
    return [int(index) for loader in loaders for index in next(iter(loader))["index"]]


def canonical(dataset, num_epochs, **options) -> list[list[int]]:
    loader = TokenLoader(dataset, rank=0, world_size=1, num_epochs=num_epochs, **options)
    return [batch["index"].tolist() for batch in loader]


def flat(batches) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


@settings(max_examples=examples(25), deadline=None)
@given(
    num_samples=st.integers(24, 200),
    seed=st.integers(-5, 2**40),
    shuffle=st.booleans(),
    order=st.sampled_from([None, "blocks:30x2"]),
    legs=st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), st.integers(0, 9), st.integers(0, 2)),
        min_size=1,
        max_size=5,
    ),
)
def test_kills_and_other_world_sizes_lose_and_repeat_nothing(datasets, num_samples, seed, shuffle, order, legs):
    """Legs of (world size, steps until the state is saved, steps from there to the kill) see the canonical order."""
    dataset = datasets(num_samples)
    options = {"global_batch_size": 24, "seed": seed, "shuffle": shuffle, "order": order}
    seen, state = [], None
    for world_size, num_steps, num_lost in legs:
        loaders = ranks(dataset, world_size, **options)
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(state))
        seen += [global_batch(loaders) for _ in range(num_steps)]
        states = {json.dumps(loader.state_dict()) for loader in loaders}
        assert len(states) == 1
        state = states.pop()
        for _ in range(num_lost):
            global_batch(loaders)
    steps_per_epoch = num_samples // 24
    num_epochs = -(-len(seen) // steps_per_epoch)
    assert seen == canonical(dataset, num_epochs, **options)[: len(seen)]
    for epoch in range(len(seen) // steps_per_epoch):
        indices = flat(seen[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch])
        assert len(indices) == len(set(indices)) == 24 * steps_per_epoch


def test_eight_ranks_become_six_three_and_one(datasets):
    dataset = datasets(241)
    seen, state = [], None
    for world_size, num_steps in ((8, 3), (6, 4), (3, 1), (1, 2)):
        loaders = ranks(dataset, world_size, global_batch_size=24, seed=9)
        if state:
            for loader in loaders:
                loader.load_state_dict(state)
        seen += [global_batch(loaders) for _ in range(num_steps)]
        state = loaders[-1].state_dict()
    assert seen == canonical(dataset, 1, global_batch_size=24, seed=9)
    assert (state["epoch"], state["step"]) == (1, 0)


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(1, 120), st.sampled_from([1, 2, 4, 8]), st.integers(1, 6))
def test_the_last_smaller_batch(datasets, num_samples, world_size, batch_size):
    """drop_last=False delivers every sample once an epoch, in shares that differ by at most one, never empty."""
    options = {"global_batch_size": world_size * batch_size, "drop_last": False, "num_epochs": 1}
    rest = num_samples % options["global_batch_size"]
    if 0 < rest < world_size:
        with pytest.raises(UserError, match=f"last batch of an epoch has {rest} samples for {world_size} ranks"):
            ranks(datasets(num_samples), world_size, **options)
        return
    loaders = ranks(datasets(num_samples), world_size, **options)
    batches = [[batch["index"].tolist() for batch in loader] for loader in loaders]
    assert {len(of_rank) for of_rank in batches} == {len(loaders[0])}
    for step in zip(*batches, strict=True):
        sizes = [len(share) for share in step]
        assert max(sizes) - min(sizes) <= 1 <= min(sizes)
    assert sorted(flat(itertools.chain(*batches))) == [3 * row for row in range(num_samples)]


def test_epochs_differ_and_seeds_differ(datasets):
    dataset = datasets(96)
    epochs = np.array(canonical(dataset, 3, global_batch_size=24)).reshape(3, -1).tolist()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    other = canonical(dataset, 1, global_batch_size=24, seed=1)
    assert flat(other) != epochs[0]
    in_order = canonical(dataset, 2, global_batch_size=24, shuffle=False)
    assert flat(in_order[:4]) == flat(in_order[4:]) == [3 * row for row in range(96)]


def test_rows_says_what_a_step_delivers(datasets):
    loader = TokenLoader(datasets(100), global_batch_size=8, rank=1, world_size=2, num_epochs=3)
    steps = [(epoch, step) for epoch in range(3) for step in range(loader.steps_per_epoch)]
    for (epoch, step), batch in zip(steps, loader, strict=True):
        assert (3 * loader.rows(epoch, step)).tolist() == batch["index"].tolist()
    with pytest.raises(IndexError):
        loader.rows(0, loader.steps_per_epoch)


def test_a_long_look_ahead_is_cut_into_the_right_steps(datasets, monkeypatch):
    dataset = datasets(100)
    expected = canonical(dataset, 2, global_batch_size=8, drop_last=False)
    for ahead in (1, 8, 20, 1000):
        monkeypatch.setattr("hpcdata.order.steps._ROWS_AHEAD", ahead)
        assert canonical(dataset, 2, global_batch_size=8, drop_last=False) == expected


def test_lengths_and_ends(datasets):
    loader = TokenLoader(datasets(50), global_batch_size=8, num_epochs=2)
    assert (len(loader), loader.steps_per_epoch, loader.batch_size) == (12, 6, 8)
    assert len(list(loader)) == 12
    with pytest.raises(UserError, match="has delivered all of num_epochs=2: for more epochs leave num_epochs out"):
        list(loader)
    loader.set_epoch(1)
    assert len(list(loader)) == 6
    endless = TokenLoader(datasets(50), global_batch_size=8)
    assert len(list(itertools.islice(endless, 30))) == 30
    assert (endless.epoch, endless.step) == (5, 0)
    assert len(list(endless.iter_epoch())) == 6
    with pytest.raises(TypeError, match="steps_per_epoch"):
        len(endless)


def test_batches_are_tensors_and_counted(datasets):
    loader = TokenLoader(datasets(50), global_batch_size=10, num_epochs=1, layout=T2I(block_size=4))
    batches = list(loader)
    assert batches[0]["input_ids"].shape == (10, 5)
    assert (batches[0]["input_ids"].dtype, batches[0]["attention_mask"].dtype) == (torch.int64, torch.bool)
    num_valid = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert loader.counts.samples == loader.counts.image_tokens == 50
    assert loader.counts.text_tokens + loader.counts.image_tokens == num_valid
    assert num_valid + loader.counts.padding == 50 * 5
    assert loader.counts.truncated_texts == sum(len(example.spans[0].ids) > 2 for example in loader.dataset)


def test_zero_codes_arrive(datasets):
    """Every third image is of code 0 only: it is a valid code like any other."""
    loader = TokenLoader(datasets(48), global_batch_size=48, num_epochs=1)
    (batch,) = loader
    zeros = batch["index"] % 9 == 0
    assert zeros.sum() == 16
    assert (batch["input_ids"][zeros, 16] == 32001).all()
    assert batch["attention_mask"][:, 16].all()


def test_state_is_small_and_plain(datasets):
    loader = TokenLoader(datasets(50), global_batch_size=8, seed=2**63, layout=T2I(block_size=8))
    loader.epoch = 10**9
    state = json.dumps(loader.state_dict())
    assert len(state) < 1024
    loader.load_state_dict(json.loads(state))
    assert len(pickle.dumps(loader.state_dict())) < 1024


def test_an_iterator_follows_a_restored_state(datasets):
    loader = TokenLoader(datasets(50), global_batch_size=8)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    expected = [next(batches)["index"].tolist() for _ in range(9)]
    loader.load_state_dict(state)
    assert [next(batches)["index"].tolist() for _ in range(9)] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "saved with seed=0, this loader has 1"),
        ({"shuffle": False}, "saved with shuffle=True"),
        ({"global_batch_size": 4}, "saved with global_batch_size=8, this loader has 4"),
        ({"drop_last": False}, "saved with drop_last=True"),
        ({"layout": "text"}, "saved with layout='t2i', this loader has 'text'"),
        ({"layout": T2I(block_size=9)}, "saved with layout_digest"),
    ],
)
def test_a_state_of_other_settings_is_refused(datasets, options, message):
    state = TokenLoader(datasets(50), global_batch_size=8).state_dict()
    other = TokenLoader(datasets(50), **{"global_batch_size": 8, **options})
    with pytest.raises(UserError, match=message):
        other.load_state_dict(state)
    assert (other.epoch, other.step) == (0, 0)


def test_a_state_of_other_data_is_refused(datasets, tmp_path):
    loader = TokenLoader(datasets(50), global_batch_size=8)
    for entry, message in (("content_digest", "content digest aaaa"), ("fingerprint", "plan fingerprint aaaa")):
        folder = made.make_dataset(tmp_path / entry, made.split(made.pairs(50)), **{entry: "a" * 64})
        with pytest.raises(UserError, match=f"of other data: {message}"):
            loader.load_state_dict(TokenLoader(folder, global_batch_size=8).state_dict())


@pytest.mark.parametrize("change", [{"epoch": -1}, {"step": 6}, {"step": "0"}, {"epoch": None}, {"version": 2}])
def test_a_damaged_state_is_refused(datasets, change):
    loader = TokenLoader(datasets(50), global_batch_size=8)
    with pytest.raises(UserError, match=r"damaged|not a state"):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(UserError, match="not a state"):
        loader.load_state_dict({})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch_size": 24, "rank": 0, "world_size": 5}, "24 cannot be divided evenly among 5 ranks"),
        ({"global_batch_size": 0}, "global_batch_size=0"),
        ({"global_batch_size": 64}, "50 samples, less than one global batch of 64"),
        ({"global_batch_size": 8, "layout": "i2t"}, "unknown layout 'i2t'"),
    ],
)
def test_settings_are_checked_at_once(datasets, options, message):
    with pytest.raises(UserError, match=message):
        TokenLoader(datasets(50), **options)


def test_an_error_leaves_the_cursor(datasets):
    loader = TokenLoader(datasets(50), global_batch_size=8, layout=T2I(block_size=8, num_image_tokens=4))
    for _ in range(2):
        with pytest.raises(UserError, match="num_image_tokens=1"):
            next(iter(loader))
    assert (loader.epoch, loader.step, loader.counts.samples) == (0, 0, 0)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("options", [{}, {"packing": BestFit(length=40, window=8), "layout": Caption(max_length=9)}])
@pytest.mark.parametrize("is_mixture", [False, True])
def test_blocks_are_asked_for_before_they_are_read(datasets, monkeypatch, world_size, options, is_mixture):
    """Each block once an epoch, before the first of its rows, and no more than a window ahead."""
    monkeypatch.setattr("hpcdata.order.steps._ROWS_AHEAD", 8)
    asked = []
    monkeypatch.setattr(TokenDataset, "will_read", lambda self, ranges: asked.extend(ranges.tolist()))
    dataset, offset = datasets(100), 0
    if is_mixture:
        sources = [("b", "first:50", "shuffled"), ("a", "all", "blocks:10x3")]
        dataset = Mixture([Source(dataset=dataset, name=n, sampling=s, order=o, weight=1) for n, s, o in sources])
        offset = 100
    else:
        options = {**options, "order": "blocks:10x3"}
    loader = TokenLoader(dataset, global_batch_size=4, rank=0, world_size=world_size, drop_last=False, **options)
    seen = set()
    for batch in itertools.islice(loader, 60):
        rows = {row for first, size in asked for row in range(first, first + size)}
        own = [row // 3 for at, row in enumerate(batch["index"].tolist()) if not is_mixture or batch["source"][at]]
        assert {row + offset for row in own} <= rows
        seen |= set(own)
    assert len(seen) == 100 or world_size > 1
    first_epoch = list(itertools.accumulate(size for _, size in asked)).index(100) + 1
    rows = flat(range(first, first + size) for first, size in asked[:first_epoch])
    assert sorted(rows) == list(range(offset, offset + 100))
    assert len(asked) > first_epoch


def test_one_sample(datasets):
    assert flat(canonical(datasets(1), 3, global_batch_size=1)) == [0, 0, 0]
    mixture = Mixture([Source(dataset=datasets(1), name=name) for name in "ab"], policy="stop_all")
    (batch,) = TokenLoader(mixture, global_batch_size=2, num_epochs=1)
    assert (batch["index"].tolist(), sorted(batch["source"].tolist())) == ([0, 0], [0, 1])


@pytest.mark.parametrize("packing", [BestFit(length=20), Concat(length=20), Buckets(multiple=4)])
def test_more_ranks_than_samples(datasets, packing):
    """Three rows for eight ranks are refused, packed or not; for three ranks they are a last step."""
    layout = Text(max_length=9) if isinstance(packing, Concat) else Caption(max_length=9)
    options = {"global_batch_size": 24, "packing": packing, "layout": layout, "drop_last": False, "num_epochs": 1}
    with pytest.raises(UserError, match="3 samples, too few rows for 8 ranks: use fewer ranks"):
        ranks(datasets(3), 8, **options)
    loaders = ranks(datasets(3), 3, **options)
    batches = [list(loader) for loader in loaders]
    assert {len(of_rank) for of_rank in batches} == {len(loaders[0])}
    found = [batch for of_rank in batches for batch in of_rank]
    assert sorted(flat(batch["index"].tolist() for batch in found)) == [0, 3, 6]
    assert {batch["input_ids"].shape[0] for batch in found} == {1}
    with pytest.raises(UserError, match="3 samples, less than one global batch of 8"):
        TokenLoader(datasets(3), global_batch_size=8, rank=0, world_size=8)


def test_an_epoch_that_packs_into_less_than_a_batch(tmp_path):
    """Rows of 10 from windows of two samples of 6, 6, 4, 4 ids: two rows or three, as the epoch's order has it."""
    examples = [Example(index=at, key=str(at), spans=(made.text(*range(n)),)) for at, n in enumerate((4, 4, 2, 2))]
    dataset = TokenDataset(made.make_dataset(tmp_path, [examples]))
    options = {"packing": BestFit(length=10, window=2), "layout": "text", "seed": 12}
    bins = [TokenLoader(dataset, global_batch_size=1, **options).num_steps(epoch) for epoch in range(5)]
    assert bins[:3] == [3, 3, 2]
    loader = TokenLoader(dataset, global_batch_size=3, **options)
    assert len(list(itertools.islice(loader, 2))) == 2
    resumed = TokenLoader(dataset, global_batch_size=3, **options)
    resumed.load_state_dict(loader.state_dict())
    for each in (loader, resumed):
        with pytest.raises(UserError, match=r"epoch 2 of .* less than one global batch of 3 rows"):
            next(iter(each))


def test_the_state_of_a_finished_run_needs_no_further_epoch(datasets, monkeypatch):
    options = {"global_batch_size": 2, "packing": 20, "layout": Caption(max_length=9), "num_epochs": 1}
    loader = TokenLoader(datasets(50), **options)
    assert len(list(loader)) == len(loader)
    monkeypatch.setattr(type(loader._steps), "_pack", lambda *at: 1 / 0)
    state = loader.state_dict()
    assert (state["epoch"], state["step"], state["mark"]) == (1, 0, [1, 0, 0])
    again = TokenLoader.__new__(TokenLoader)
    vars(again).update(vars(loader))
    again.load_state_dict(state)
    assert next(iter(again), None) is None


@pytest.mark.parametrize("options", [{}, {"packing": 20, "layout": Caption(max_length=9)}])
def test_a_loader_can_be_sent_to_another_process(datasets, options):
    loader = TokenLoader(datasets(50), global_batch_size=4, num_epochs=2, **options)
    next(iter(loader))
    copy = pickle.loads(pickle.dumps(loader))
    for here, there in zip(loader, copy, strict=True):
        assert all(torch.equal(here[key], there[key]) for key in here)


def test_text_layout_by_name_and_path(datasets):
    loader = TokenLoader(str(datasets(50).path), global_batch_size=8, layout="text")
    assert loader.layout == Text().bind(loader.dataset.manifest)
    assert next(iter(loader))["input_ids"].shape == (8, 16)


def test_importing_hpcdata_is_light():
    code = "import hpcdata, sys; hpcdata.__version__; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "from hpcdata import TokenDataset, TokenLoader, T2I, Text; import sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    with pytest.raises(ImportError):
        from hpcdata import nothing  # noqa: F401
