"""python -m pytest tests/loading/test_token_streams.py"""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Caption, Text
from hpcdata.loading.token_streams import Mixture, Source
from hpcdata.order.order import BlockOrder
from hpcdata.order.packing import BestFit
from hpcdata.order.streams import MixtureStream
from hpcdata.samples import Example
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Text-only and paired datasets of any size; plan indices are rows."""
    found = {}

    def get(size: int, kind: str = "texts") -> TokenDataset:
        if (size, kind) not in found:
            rng = np.random.default_rng(size)
            examples = []
            for row in range(size):
                spans = [made.text(*rng.integers(0, 32000, rng.integers(1, 9)))]
                if kind == "pairs":
                    spans.append(made.image(*rng.integers(0, 16384, 4)))
                examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
            folder = tmp_path_factory.mktemp("made") / f"{kind}-{size}"
            digest = {"content_digest": f"{kind}-{size}".ljust(64, "0")}
            found[size, kind] = TokenDataset(made.make_dataset(folder, made.split(examples, (3, 0, 2)), **digest))
        return found[size, kind]

    return get


def ranks(mixture, world_size, **options):
    return [TokenLoader(mixture, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def step_of(loaders):
    """(source, index) of one step of all ranks."""
    batches = [next(iter(loader)) for loader in loaders]
    return [(int(s), int(i)) for batch in batches for s, i in zip(batch["source"], batch["index"], strict=True)]


def mixture_of(datasets, sizes, weights=None, **options):
    weights = weights or [None] * len(sizes)
    sources = [Source(dataset=datasets(n), weight=w, max_repeats=2) for n, w in zip(sizes, weights, strict=True)]
    return Mixture(sources, **options)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([5, 9, 17, 30]), min_size=1, max_size=3, unique=True),
    weights=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    policy=st.sampled_from(["stop_first", "stop_all", "max_repeats"]),
    seed=st.integers(0, 2**40),
)
def test_every_sample_comes_as_often_as_it_should(datasets, sizes, weights, policy, seed):
    """Per-source epochs: no sample of a source comes again before all of them have come as often."""
    mixture = mixture_of(datasets, sizes, weights[: len(sizes)], policy=policy)
    loader = TokenLoader(mixture, global_batch_size=1, seed=seed, layout="text", num_epochs=1)
    seen = [step_of([loader])[0] for _ in range(len(loader))]
    assert loader.epoch == 1
    account = loader.account()
    for source, size in enumerate(sizes):
        drawn = [index for which, index in seen if which == source]
        for start in range(0, len(drawn), size):
            whole = drawn[start : start + size]
            assert len(set(whole)) == len(whole)
        found = account[f"texts-{size}"]
        assert (found.samples, found.epochs) == (len(drawn), len(drawn) / size)
        if policy == "max_repeats":
            assert Counter(drawn) == dict.fromkeys(range(size), 2)


def test_epochs_of_a_source_and_of_the_mixture_differ(datasets):
    mixture = mixture_of(datasets, (30,), policy="max_repeats")
    loader = TokenLoader(mixture, global_batch_size=30, layout="text")
    orders = [tuple(next(iter(loader))["index"].tolist()) for _ in range(6)]
    assert len(set(orders)) == 6
    assert all(sorted(order) == list(range(30)) for order in orders)


@pytest.mark.parametrize("packing", [None, BestFit(length=24, window=8)])
def test_changed_weights_are_part_of_the_state(datasets, packing):
    """From the next batch (packing: window) on, the same on every world size and after restoring."""
    mixture = mixture_of(datasets, (9, 17, 41), (1, 1, 1))
    options = {"global_batch_size": 4, "packing": packing, "layout": "text"}
    loader = TokenLoader(mixture, **options)
    unchanged = TokenLoader(mixture, **options)
    for _ in range(5):
        assert step_of([loader]) == step_of([unchanged])
    state = loader.state_dict()
    loader.set_weights({"texts-9": 0, "texts-17": 3, "texts-41": 1})
    changed = loader.state_dict()
    position = changed["changes"][0][1]
    assert changed["changes"] == [[0, position, [0, 3, 1]]]
    assert position == 20 if packing is None else position % 8 == 0
    after = [step_of([loader]) for _ in range(30)]
    late = [source for step in after[10:] for source, _ in step]
    assert 0 not in late
    assert 0.65 < late.count(1) / len(late) < 0.85
    others = ranks(mixture, 2, **options)
    for other in others:
        other.load_state_dict(json.loads(json.dumps(changed)))
    assert [step_of(others) for _ in range(30)] == after
    assert others[0].account() == loader.account()
    assert others[0].account()["texts-9"].samples < unchanged.account()["texts-9"].samples + 12
    loader.load_state_dict(state)
    assert step_of([loader]) == step_of([unchanged])


def test_weights_that_leave_a_rank_without_its_last_sample_are_refused(datasets):
    """The end of an epoch moves with the weights: what is refused when a loader is made is refused here as well."""
    mixture = mixture_of(datasets, (9, 17), (1, 1), policy="stop_first")
    options = {"global_batch_size": 6, "layout": "text", "drop_last": False}
    loader = TokenLoader(mixture, rank=0, world_size=1, **options)
    next(iter(loader))
    loader.set_weights({"texts-9": 4, "texts-17": 1})
    state = loader.state_dict()
    assert loader.stream.num_samples(0) % 6 == 1
    for other in ranks(mixture, 2, **options):
        before = other.state_dict()
        with pytest.raises(UserError, match="1 samples for 2 ranks"):
            other.load_state_dict(state)
        next(iter(other))
        with pytest.raises(UserError, match="1 samples for 2 ranks"):
            other.set_weights({"texts-9": 4, "texts-17": 1})
        assert other.state_dict() == {**before, "step": 1}


def test_the_ledger_of_changes_has_an_end(datasets):
    loader = TokenLoader(mixture_of(datasets, (9, 17), (1, 1)), global_batch_size=4, layout="text")
    while len(json.dumps(loader.state_dict())) < 940:
        next(iter(loader))
        loader.set_weights({"texts-9": 1, "texts-17": 2})
    next(iter(loader))
    with pytest.raises(UserError, match=r"the weights of 2 sources were changed \d+ times"):
        loader.set_weights({"texts-9": 1, "texts-17": 20**6})
    assert len(json.dumps(loader.state_dict())) < 1024
    with pytest.raises(UserError, match="weights_ledger=PATH"):
        loader.set_weights({"texts-9": 1, "texts-17": 20**6})
    with pytest.raises(UserError, match="expected one for each of texts-9, texts-17"):
        loader.set_weights({"texts-9": 1})
    with pytest.raises(UserError, match="this loader has one dataset"):
        TokenLoader(datasets(9), global_batch_size=4, layout="text").set_weights({"texts-9": 1})


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, (9, 41)),
        ({"strategy": "uniform"}, (1, 1)),
        ({"strategy": "power:0"}, (1, 1)),
        ({"strategy": "power:1"}, (9, 41)),
        ({"strategy": "proportional", "weights": (2, 1)}, (18, 41)),
        ({"weights": (0.25, 0.75)}, (1, 3)),
    ],
)
def test_strategies(datasets, options, weights):
    assert mixture_of(datasets, (9, 41), **options).weights == weights


def test_sqrt_lies_between_uniform_and_proportional(datasets):
    small, large = mixture_of(datasets, (9, 41), strategy="sqrt").weights
    assert large / small == pytest.approx((41 / 9) ** 0.5, rel=1e-4)


def test_sources_of_several_kinds_and_parts(datasets):
    """Ids come from the right dataset: every sample is what its source says, sub-sampled and repeated."""
    sources = [
        Source(dataset=datasets(30, "pairs"), weight=2, name="pairs"),
        Source(dataset=str(datasets(41).path), weight=1, sampling="random:20%"),
        Source(dataset=datasets(17), weight=1, sampling="end:3"),
    ]
    loader = TokenLoader(Mixture(sources), global_batch_size=8, layout=Caption(max_length=20), seed=3)
    opened = [datasets(30, "pairs"), datasets(41), datasets(17)]
    seen = set()
    for _ in range(20):
        batch = next(iter(loader))
        for at, (source, index) in enumerate(zip(batch["source"].tolist(), batch["index"].tolist(), strict=True)):
            alone = loader.layout.batch(opened[source], np.array([index])).arrays
            assert batch["input_ids"][at].tolist() == alone["input_ids"][0].tolist()
            seen.add((source, index))
    assert sum(source == 1 for source, _ in seen) == 9
    assert sorted(index for source, index in seen if source == 2) == [14, 15, 16]
    assert {name: account.samples for name, account in loader.account().items()} == {
        "pairs": 80,
        "texts-41": 40,
        "texts-17": 40,
    }


def test_a_state_of_another_mixture_is_refused(datasets):
    options = {"global_batch_size": 4, "layout": "text"}
    state = TokenLoader(mixture_of(datasets, (9, 17), (1, 2)), **options).state_dict()
    with pytest.raises(
        UserError, match=r"mixture_digest=.*restore the mixture \(its sources in their order, .*weights"
    ):
        TokenLoader(mixture_of(datasets, (9, 17), (2, 1)), **options).load_state_dict(state)
    with pytest.raises(UserError, match="of other data"):
        TokenLoader(mixture_of(datasets, (9, 30), (1, 2)), **options).load_state_dict(state)
    with pytest.raises(UserError, match="of other data"):
        TokenLoader(datasets(9), **options).load_state_dict(state)
    loader = TokenLoader(mixture_of(datasets, (9, 17), (1, 2)), **options)
    with pytest.raises(UserError, match="damaged"):
        loader.load_state_dict({**state, "changes": [[0, 1]]})


def test_a_mixture_is_checked_at_once(datasets, tmp_path):
    with pytest.raises(UserError, match="at least one source"):
        Mixture([])
    with pytest.raises(UserError, match="policy 'forever'"):
        mixture_of(datasets, (9,), policy="forever")
    with pytest.raises(UserError, match="strategy 'cube'"):
        mixture_of(datasets, (9,), strategy="cube")
    with pytest.raises(UserError, match="some have none"):
        mixture_of(datasets, (9, 17), (1, None))
    with pytest.raises(UserError, match="different names"):
        Mixture([Source(dataset=datasets(9)), Source(dataset=datasets(9))])
    other = made.make_dataset(tmp_path / "other", [made.pairs(3)], text={**made.TEXT, "sha256": "cc"})
    with pytest.raises(UserError, match="texts-9 and other of the mixture differ in text tokenizer"):
        Mixture([Source(dataset=datasets(9)), Source(dataset=other)])
    wide = made.make_dataset(tmp_path / "wide", [made.pairs(3)], id_dtype="int32")
    with pytest.raises(UserError, match="wide of the mixture has int32 ids, texts-9 has uint16"):
        Mixture([Source(dataset=datasets(9)), Source(dataset=wide)])
    endless = TokenLoader(mixture_of(datasets, (9, 17)), global_batch_size=4, layout=Text(max_length=9), num_epochs=1)
    with pytest.raises(TypeError, match="no end"):
        len(endless)


@pytest.mark.parametrize("order", ["blocks:4x2", "blocks", "sequential"])
def test_a_source_in_an_order_of_its_own(tmp_path, order):
    """Blocks within a mixture: every sample of the source once an epoch, near ones near each other."""
    texts = [Example(index=row, key=str(row), spans=(made.text(5),)) for row in range(120)]
    for name in ("blocks", "shuffled"):
        made.make_dataset(tmp_path / name, made.split(texts, (50, 0, 60)))
    sources = [Source(dataset=tmp_path / "blocks", order=order), Source(dataset=tmp_path / "shuffled")]
    stream = MixtureStream(Mixture(sources, policy="stop_all"), seed=3, shuffle=True)
    draws = stream.draws(0, np.arange(480))
    rows = draws.rows[draws.source == 0]
    for epoch in (rows[:120], rows[120:]):
        assert sorted(epoch.tolist()) == list(range(120))
    assert (rows[:120] != rows[120:]).any() == (order != "sequential")
    if order == "blocks:4x2":
        for window in rows[:112].reshape(-1, 8):
            assert len(np.unique(window // 4)) <= 4  # two blocks, each across at most one edge
    few = stream.draws(0, np.array([479, 3, 250]))
    assert few.rows.tolist() == draws.rows[[479, 3, 250]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sorted"}, "order 'sorted': expected shuffled, sequential, blocks"),
        ({"order": "blocks:0x4"}, "expected shuffled"),
        ({"order": "blocks", "sampling": "random:50%"}, "blocks of a random subset"),
    ],
)
def test_orders_that_cannot_be(tmp_path, options, message):
    made.make_dataset(tmp_path, made.split(made.pairs(20)))
    with pytest.raises(UserError, match=message):
        Mixture([Source(dataset=tmp_path, **options)])


def test_a_state_of_another_order_of_a_source_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcdata.order.steps._ROWS_AHEAD", 64)  # of windows this small, many take long
    made.make_dataset(tmp_path, made.split(made.pairs(40)))

    def loader(order: str) -> TokenLoader:
        return TokenLoader(Mixture([Source(dataset=tmp_path, order=order)]), global_batch_size=4)

    blocks = loader("blocks:4x2")
    expected = [next(iter(blocks))["index"].tolist() for _ in range(6)]
    resumed = loader("blocks:4x2")
    resumed.load_state_dict({**resumed.state_dict(), "step": 5})
    assert next(iter(resumed))["index"].tolist() == expected[5]
    with pytest.raises(UserError, match="mixture_digest"):
        loader("shuffled").load_state_dict(blocks.state_dict())


def test_an_order_by_its_name(tmp_path):
    dataset = TokenDataset(made.make_dataset(tmp_path, made.split(made.pairs(40))))
    named = TokenLoader(dataset, global_batch_size=4, order="blocks:4x2", seed=5)
    built = TokenLoader(
        dataset, global_batch_size=4, order=BlockOrder(num_samples=40, seed=5, block_rows=4, window_blocks=2), seed=5
    )
    assert named.rows(1, 3).tolist() == built.rows(1, 3).tolist()
    built.load_state_dict(named.state_dict())


@pytest.mark.parametrize(
    ("weights", "world_size", "size"), [((1, 1), 2, 2), ((1, 1), 8, 8), ((1, 3), 4, 8), ((1, 1, 2), 2, 4)]
)
def test_every_rank_sees_every_source(datasets, weights, world_size, size):
    """About as often as its weight says, although weights are periodic with the ranks; each step is exact as before."""
    mixture = mixture_of(datasets, (40, 41, 42)[: len(weights)], weights)
    loaders = ranks(mixture, world_size, global_batch_size=size, layout="text", seed=3)
    schedule, shares = loaders[0].stream.schedule(0), np.array(weights) / sum(weights)
    seen, num_steps = np.zeros((world_size, len(weights))), 400
    for step in range(num_steps):
        of_ranks = [loader.batch_at(0, step)["source"].numpy() for loader in loaders]
        counted = [np.bincount(source, minlength=len(weights)) for source in of_ranks]
        seen += counted
        before, after = schedule.counts(step * size), schedule.counts((step + 1) * size)
        assert sum(counted).tolist() == np.subtract(after, before).tolist()
    assert np.abs(seen / (num_steps * size // world_size) - shares).max() < 0.1


def test_turned_steps_are_the_same_samples_as_before(datasets):
    """Each step is turned by itself, the last and smaller one too."""
    mixture = mixture_of(datasets, (40, 41), (1, 2), policy="stop_all")
    options = {"global_batch_size": 12, "layout": "text", "seed": 3, "drop_last": False, "num_epochs": 2}
    (loader,), (as_before,) = ranks(mixture, 1, **options), ranks(mixture, 1, **options)
    state = as_before.state_dict()
    assert state["settings"].pop("order_of_steps") == "turned"
    as_before.load_state_dict(state)
    turns = set()
    for found, expected in zip(list(loader), list(as_before), strict=True):
        found, expected = found["index"].tolist(), expected["index"].tolist()
        turns |= {turn for turn in range(len(expected)) if expected[-turn:] + expected[:-turn] == found}
    assert len(turns) > 5
    assert sorted(loader.rows(0, 3).tolist()) == sorted(as_before.rows(0, 3).tolist())


def test_a_state_says_whether_steps_are_turned(datasets):
    """One of 0.1.0 has no turned steps; whoever goes on from it saves such states; and the other way round."""
    mixture, options = mixture_of(datasets, (40, 41), (1, 1)), {"global_batch_size": 8, "layout": "text", "seed": 1}
    new, other = TokenLoader(mixture, **options), TokenLoader(mixture, **options)
    state = new.state_dict()
    old = {**state, "settings": {k: v for k, v in state["settings"].items() if k != "order_of_steps"}}
    other.load_state_dict(old)
    assert other.state_dict() == old
    assert other.rows(0, 2).tolist() == other.stream.draws(0, np.arange(16, 24)).rows.tolist()
    assert any(other.rows(0, step).tolist() != new.rows(0, step).tolist() for step in range(4))
    other.set_weights({name: 1 + place for place, name in enumerate(mixture.names)})
    assert "order_of_steps" not in other.state_dict()["settings"]
    with pytest.raises(UserError, match="seed"):
        other.load_state_dict({**state, "settings": {**state["settings"], "seed": 2}})
    assert "order_of_steps" not in other.state_dict()["settings"]
    other.load_state_dict(state)
    assert other.rows(0, 2).tolist() == new.rows(0, 2).tolist()
    assert "order_of_steps" not in TokenLoader(mixture, shuffle=False, **options).state_dict()["settings"]
    assert "order_of_steps" not in TokenLoader(mixture, packing=64, **options).state_dict()["settings"]
