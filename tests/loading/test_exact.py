"""python -m pytest tests/loading/test_exact.py

Acceptance: whatever the data, weights, packing, world sizes, kills and changes of weights, the ranks together see the
canonical order of one process that was never interrupted, and every sample comes exactly as often as it should.
"""

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
from hpcdata.order.mixing.schedule import POLICIES
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.samples import Example
from tests.loading import made

torch.set_num_threads(1)
_ROWS_AHEAD = 64
SIZES = (1, 5, 17, 40, 61, 71)
GLOBAL_BATCH = 12
WORLD_SIZES = (1, 2, 3, 4, 6, 12)


@pytest.fixture(scope="module", autouse=True)
def _short_look_ahead():
    """Its edges fall between the steps of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcdata.order.steps._ROWS_AHEAD", _ROWS_AHEAD)
        yield


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A dataset of each of SIZES: texts of 0 to 8 ids, a third of them with an image of 1 or 4 codes."""
    found = {}
    for size in SIZES:
        rng = np.random.default_rng(size)
        examples = []
        for row in range(size):
            spans = [made.text(*rng.integers(0, 32000, rng.integers(0, 9)))]
            if row % 3 == 0:
                spans.append(made.image(*rng.integers(0, 16384, rng.choice([1, 4]))))
            examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
        folder = tmp_path_factory.mktemp("made") / f"of-{size}"
        digest = {"content_digest": f"{size}".ljust(64, "0")}
        found[size] = TokenDataset(made.make_dataset(folder, made.split(examples, (3, 0, 2)), **digest))
    return found


sources = st.lists(
    st.tuples(
        st.sampled_from(SIZES[:-1]),
        st.integers(1, 9),
        st.integers(1, 3),
        st.sampled_from(["all", "first:60%", "end:1", "random:40%", "random:99.5%"]),
        st.sampled_from(["shuffled", "sequential", "blocks:4x2"]),
    ),
    max_size=3,
    unique_by=lambda source: source[0],
).map(lambda others: [(71, 5, 2, "all", "shuffled"), *others])
packings = st.one_of(
    st.none(),
    st.builds(
        BestFit,
        length=st.sampled_from([16, 20]),
        window=st.integers(20, 60),
        max_images=st.sampled_from([None, 1]),
    ),
    st.builds(Concat, length=st.sampled_from([7, 12]), window=st.integers(20, 60)),
    st.builds(Buckets, multiple=st.sampled_from([1, 8]), window=st.integers(20, 60)),
)
legs = st.lists(
    st.tuples(
        st.sampled_from(WORLD_SIZES),
        st.integers(0, 4),  # steps until the state is saved
        st.integers(0, 2),  # steps after that, until the kill
        st.one_of(st.none(), st.lists(st.integers(1, 5), min_size=4, max_size=4)),  # new weights when it begins
    ),
    min_size=1,
    max_size=4,
)


def ranks(dataset, world_size: int, **options) -> list[TokenLoader]:
    return [TokenLoader(dataset, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def step_of(loaders) -> dict[str, torch.Tensor]:
    """One step of all ranks, put together in the order of the ranks."""
    batches = [next(iter(loader)) for loader in loaders]
    names = [name for name in batches[0] if name not in ("cu_seqlens", "max_seqlen")]
    return {name: torch.cat([batch[name] for batch in batches]) for name in names}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(sources, st.sampled_from(POLICIES), packings, st.booleans(), st.integers(0, 2**40), legs)
def test_any_kills_of_any_mixture(datasets, sources, policy, packing, drop_last, seed, legs):
    mixture = Mixture(
        [
            Source(
                dataset=datasets[size],
                weight=weight,
                max_repeats=repeats,
                sampling=sampling,
                order="shuffled" if sampling.startswith("random") else order,
            )
            for size, weight, repeats, sampling, order in sources
        ],
        policy=policy,
    )
    layout = Text(max_length=12) if isinstance(packing, Concat) else Caption(max_length=16)
    options = {"global_batch_size": GLOBAL_BATCH, "layout": layout, "packing": packing, "seed": seed}
    try:
        run(mixture, {**options, "drop_last": drop_last}, legs)
    except UserError as error:  # fewer samples than a global batch or, in its last one, than ranks
        if not any(part in str(error) for part in ("global batch", "some would get none", "too few rows")):
            raise


def run(mixture, options, legs) -> None:
    canonical = TokenLoader(mixture, rank=0, world_size=1, **options)
    state = json.dumps(canonical.state_dict())
    seen: list[tuple[int, int, int]] = []
    for world_size, num_steps, num_lost, weights in legs:
        loaders = ranks(mixture, world_size, **options)
        for loader in loaders:
            loader.load_state_dict(json.loads(state))
        seen += catch_up(canonical, loaders[0])
        if weights:
            for loader in (canonical, *loaders):
                loader.set_weights(dict(zip(mixture.names, weights, strict=False)))
        for _ in range(num_steps):
            epoch, expected, found = canonical.epoch, next(iter(canonical)), step_of(loaders)
            assert all(torch.equal(found[name], expected[name]) for name in found)
            seen += samples_of(epoch, found)
            seen += catch_up(canonical, loaders[0])
        states = {json.dumps(loader.state_dict()) for loader in loaders}
        assert states == {json.dumps(canonical.state_dict())}
        state = states.pop()
        assert len(state) < 1024
        for _ in range(num_lost):
            step_of(loaders)
    check_counts(mixture, options, canonical, seen)


def samples_of(epoch: int, batch) -> list[tuple[int, int, int]]:
    return [(epoch, *pair) for pair in zip(*(batch[name].tolist() for name in ("source", "index")), strict=True)]


def catch_up(canonical: TokenLoader, loader: TokenLoader) -> list[tuple[int, int, int]]:
    """The samples of the last steps of an epoch that so many ranks leave out, as they have fewer rows."""
    seen = []
    while (canonical.epoch, canonical.step) != (loader.epoch, loader.step):
        epoch, batch = canonical.epoch, next(iter(canonical))
        assert canonical.packing is not None
        assert len(batch["input_ids"]) < loader.world_size
        seen += samples_of(epoch, batch)
    return seen


def check_counts(mixture, options, loader, seen) -> None:
    """The account is what was seen, and what was seen of a finished epoch is what its schedule says."""
    account, packing = loader.account(), options["packing"]
    if not isinstance(packing, Concat):  # its samples come in pieces
        of_source = Counter(mixture.names[source] for _, source, _ in seen)
        assert {name: found.samples for name, found in account.items()} == {n: of_source[n] for n in mixture.names}
    for epoch in range(loader.epoch):
        of_epoch = [pair for at, *pair in seen if at == epoch]
        schedule = loader.stream.schedule(epoch)
        expected = schedule.counts(schedule.num_samples)
        for source, size in enumerate(mixture.sizes):
            times = Counter(index for of, index in of_epoch if of == source)
            whole, rest = divmod(expected[source], size)
            if packing is None and not options["drop_last"]:
                assert sorted(times.values()) == [n for n in [whole] * (size - rest) + [whole + 1] * rest if n]
            elif not isinstance(packing, Concat):
                assert max(times.values(), default=0) <= whole + (rest > 0)
            elif not options["drop_last"]:
                assert len(times) == min(size, expected[source])


@pytest.mark.parametrize("packing", [None, BestFit(length=16, window=30), Concat(length=9, window=30)])
def test_eight_ranks_become_six_three_and_one(datasets, packing):
    """A mixture, killed three times, in the middle of packed windows, with other weights from step 4 on."""
    mixture = Mixture(
        [Source(dataset=datasets[size], weight=weight, max_repeats=3) for size, weight in ((61, 5), (40, 3), (17, 2))],
        policy="max_repeats",
    )
    layout = Text(max_length=12) if isinstance(packing, Concat) else Caption(max_length=16)
    options = {"global_batch_size": 24, "packing": packing, "layout": layout, "drop_last": False}
    if packing is None:
        options["drop_last"] = True
    run(mixture, options, [(8, 3, 1, None), (6, 1, 2, [1, 1, 1]), (3, 4, 0, None), (1, 9, 0, None)])
