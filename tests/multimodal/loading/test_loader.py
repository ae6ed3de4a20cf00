"""Batches of raw examples that resume exactly.   pytest tests/multimodal/loading/test_loader.py"""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.loading.background import BackgroundLoader
from hpcdata.loading.step_dataset import StepDataset
from hpcdata.loading.trainers import Epochs, hf_dataloader
from hpcdata.multimodal.datasets.deterministic import DeterministicDataset
from hpcdata.multimodal.loading.fetching import Fetching
from hpcdata.multimodal.loading.loader import MultimodalLoader
from hpcdata.multimodal.loading.mixture import IterableDatasetMixture
from hpcdata.multimodal.values import Measures, Room
from hpcdata.order.packing import BestFit, Concat
from tests.multimodal.loading.toys import Plain, Toys

PACKED = {"packing": BestFit(length=64, max_images=8, window=32)}
WAYS = {
    "a row each": {"sequence_length": 64, "pad_mode": "to_16"},
    "packed": PACKED,
    "packed in one budget": {"packing": 64},
}


def make(way="packed", *, toys=None, size=8, rank=0, world_size=1, **options):
    toys = toys or Toys(90)
    options = {"consumer": "molmo", "seed": 3, "num_threads": 2, **WAYS[way], **options}
    return MultimodalLoader(toys, Plain(toys), global_batch_size=size, rank=rank, world_size=world_size, **options)


def joined(batches):
    """The global batch, of its shares in the order of ranks."""
    keys = [key for key, value in batches[0].items() if isinstance(value, torch.Tensor)]
    whole = {key: torch.cat([batch[key] for batch in batches]).tolist() for key in keys}
    return {**whole, "metadata": [row for batch in batches for row in batch["metadata"]]}


def numbers(batch) -> list[int]:
    """Of all examples of a batch, as they were delivered."""
    flat = [m for row in batch["metadata"] for m in (row if isinstance(row, list) else [row])]
    return [m["number"] for m in flat if m]


@pytest.mark.parametrize("way", WAYS)
def test_global_batches_are_equal_for_every_world_size(way):
    (canonical,) = [make(way)]
    whole = [joined([next(iter(canonical))]) for _ in range(5)]
    for world_size in (2, 4):
        ranks = [make(way, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert [joined([next(iter(rank)) for rank in ranks]) for _ in range(5)] == whole
        assert {json.dumps(rank.state_dict()) for rank in ranks} == {json.dumps(canonical.state_dict())}


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(sorted(WAYS)),
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_defect_15_kills_and_other_world_sizes_lose_and_repeat_nothing(way, legs):
    canonical = make(way)
    state = json.dumps(canonical.state_dict())
    for world_size, num_steps in legs:
        ranks = [make(way, rank=rank, world_size=world_size) for rank in range(world_size)]
        for rank in ranks:
            rank.load_state_dict(json.loads(state))
        for _ in range(num_steps):
            assert joined([next(iter(rank)) for rank in ranks]) == joined([next(iter(canonical))])
        state = json.dumps(ranks[0].state_dict())
        assert len(state) < 1024
        assert state == json.dumps(canonical.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_defect_09_an_epoch_has_every_example_once_and_its_account_closes(way):
    bad = {3: "read", 7: "long", 11: "decode"}
    toys = Toys(90, bad=bad)
    loader = make(way, toys=toys, drop_last=False, num_epochs=1)
    seen = Counter(number for batch in loader for number in numbers(batch))
    assert sorted(seen) == sorted(set(range(90)) - set(bad))
    assert set(seen.values()) == {1}
    assert loader.rejects == {"bad_example": 1, "too_long": 1, "truncated": 1}
    assert loader.num_samples == 87
    (account,) = loader.account().values()
    assert account.rejected == {"bad_example": 1, "too_long": 1}
    assert account.samples == 88, "one is found out when it is decoded"
    assert account.samples + sum(account.rejected.values()) == len(toys)
    assert account.epochs == 1
    assert account.dropped_samples == 0
    assert account.tokens == sum(length for item, length in enumerate(toys.lengths) if item not in (3, 7))
    total = loader.account().total
    assert (total.samples, total.rejected, total.tokens) == (account.samples, account.rejected, account.tokens)
    assert total.waited_s == pytest.approx(loader.waits.first_s + loader.waits.total_s)


def test_the_account_knows_the_padding_of_packed_rows():
    loader = make("packed")
    batches = [next(iter(loader)) for _ in range(2)]
    padding = sum(int((batch["segment_ids"] == 0).sum()) for batch in batches)
    assert loader.account().total.padding == padding


def test_the_account_says_what_no_last_step_took():
    loader = make("packed", size=20)
    while loader.epoch == 0:
        next(iter(loader))
    (account,) = loader.account().values()
    assert account.dropped_samples == 90 - account.samples > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["read", "decode"])
def test_defect_22_nobody_is_replaced_by_a_neighbour_or_by_something_made_up(way, kind):
    """Without the bad example, or with a good one in its place: all others stay as they are."""
    good = make(way, num_epochs=1)
    bad = make(way, toys=Toys(90, bad={13: kind}), num_epochs=1)
    rows_good = [m for batch in good for row in batch["metadata"] for m in (row if isinstance(row, list) else [row])]
    rows_bad = [m for batch in bad for row in batch["metadata"] for m in (row if isinstance(row, list) else [row])]
    draws = {m["number"]: m["draw"] for m in rows_good if m}
    assert all(draws[m["number"]] == m["draw"] for m in rows_bad if m and m["number"] in draws)
    if way == "a row each":
        assert [m for m in rows_good if m["number"] != 13] == [m for m in rows_bad if m]


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_of_the_machine_is_tried_again_and_then_raised_and_nothing_is_lost(way, monkeypatch):
    monkeypatch.setattr("hpcdata.multimodal.loading.crew.PAUSES_S", (0.0, 0.0))
    canonical, toys = make(way), Toys(90)
    loader = make(way, toys=toys, num_threads=1)
    toys.faults = 2
    assert joined([next(iter(loader))]) == joined([next(iter(canonical))])
    toys.faults, states = 10**6, [loader.state_dict()]
    with pytest.raises(OSError, match="Input/output error"):
        states.extend(loader.state_dict() for _ in loader)
    toys.faults = 0
    assert loader.state_dict() == states[-1]
    again = make(way)
    again.load_state_dict(states[-1])
    assert joined([next(iter(loader))]) == joined([next(iter(again))])
    assert not loader.rejects


def test_rows_keep_to_both_budgets_and_are_nearly_full():
    loader = make("packed", toys=Toys(2000), size=8, packing=BestFit(length=256, window=512), max_crops=20)
    loader_rows, used = 0, 0
    for _ in range(10):
        batch = next(iter(loader))
        used += int((batch["segment_ids"] > 0).sum())
        loader_rows += len(batch["input_ids"])
        assert batch["input_ids"].shape[1] == 256
        for row in batch["metadata"]:
            assert sum(loader.dataset.lengths[m["number"]] % 4 for m in row) <= 20
    assert used / (loader_rows * 256) > 0.8


def test_a_packed_row_tells_its_examples_apart():
    batch = next(iter(make("packed")))
    for ids, segments, row in zip(batch["input_ids"], batch["segment_ids"], batch["metadata"], strict=True):
        for number, metadata in enumerate(row, start=1):
            assert set(ids[segments == number].tolist()) == {metadata["number"]}


def mixture(**options):
    toys = [Toys(40, seed=1), Toys(30, seed=2), Toys(40, seed=1)]
    mixed = IterableDatasetMixture(dict(zip("abc", toys, strict=True)), [2, 1, 1], seed=5, **options)
    return mixed, Plain(toys[0])


def test_defect_12_13_equal_datasets_of_a_mixture_have_other_orders_and_other_randomness():
    """Defects 12 and 13: in Molmo, equal sizes mean equal orders and equal randomness."""
    mixed, plain = mixture()
    plain.toys.lengths = [5] * 40
    loader = MultimodalLoader(
        mixed, plain, global_batch_size=16, sequence_length=64, consumer="molmo", rank=0, world_size=1
    )
    draws, items = {0: {}, 2: {}}, {0: [], 2: []}
    counts = Counter()
    for _ in range(10):
        batch = next(iter(loader))
        for source, row in zip(batch["source"].tolist(), batch["metadata"], strict=True):
            counts[source] += 1
            if source in draws:
                draws[source].setdefault(row["number"], row["draw"])
                items[source].append(row["number"])
    assert [counts[source] for source in range(3)] == [80, 40, 40]
    both = set(draws[0]) & set(draws[2])
    assert sum(draws[0][item] != draws[2][item] for item in both) > 0.8 * len(both)
    assert items[0][:40] != items[2][:40]
    account = loader.account()
    assert {name: one.samples for name, one in account.items()} == {"a": 80, "b": 40, "c": 40}


def test_weights_change_in_the_middle_and_are_part_of_the_state():
    def made(rank, world_size):
        mixed, plain = mixture()
        plain.toys.lengths, packing = [5] * 40, BestFit(length=32, window=64)
        return MultimodalLoader(
            mixed,
            plain,
            global_batch_size=8,
            packing=packing,
            consumer="molmo",
            rank=rank,
            world_size=world_size,
        )

    one, two = made(0, 1), [made(rank, 2) for rank in range(2)]
    for loaders in ([one], two):
        for loader in loaders:
            next(iter(loader))
            loader.set_weights({"a": 0, "b": 1, "c": 1})
    for _ in range(3):
        assert joined([next(iter(one))]) == joined([next(iter(loader)) for loader in two])
    later = made(0, 1)
    later.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert joined([next(iter(later))]) == joined([next(iter(one))])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"packing": BestFit(length=64, max_images=9, window=32)}, "max_images of BestFit was 8, is 9"),
        ({"seed": 4}, "seed=3"),
        ({"consumer": "hf"}, "collator_digest"),
        ({"toys": Toys(91)}, "other data"),
    ],
)
def test_a_state_of_other_settings_is_refused(options, words):
    state = make().state_dict()
    with pytest.raises(UserError, match=words):
        make(**options).load_state_dict(state)


def test_a_state_of_another_preprocessor_is_refused():
    state, toys = make().state_dict(), Toys(90)
    other = MultimodalLoader(
        toys, Plain(toys, salt=1), global_batch_size=8, consumer="molmo", seed=3, rank=0, world_size=1, **PACKED
    )
    with pytest.raises(UserError, match=r"preprocessor_digest.*salt was 0, is 1"):
        other.load_state_dict(state)


def test_examples_are_made_by_several_threads_ahead_and_in_bounded_memory():
    toys = Toys(400, longest=300)
    loader = make("a row each", toys=toys, sequence_length=1024, num_threads=3, memory_mb=0)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    assert len(loader._begun) == 1, "the next batch is in work, and no more"
    assert len(loader.preprocessor.threads) > 1
    loader = make("a row each", toys=toys, sequence_length=1024)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    assert len(loader._begun) > 4


def test_a_loader_goes_through_pickle_and_fork():
    loader = make()
    next(iter(loader))
    expected = joined([make().batch_at(0, 1)])
    again = pickle.loads(pickle.dumps(loader))
    assert joined([next(iter(again))]) == expected
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_next_of, (loader,)) == expected
    assert joined([next(iter(loader))]) == expected


def _next_of(loader):
    return joined([next(iter(loader))])


def test_a_child_of_a_fork_goes_on_where_its_parent_stood():
    loader = make("a row each")
    iterator = iter(loader)
    next(iterator)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            os.write(writing, repr(numbers(next(iterator))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        assert answer.read() == repr(numbers(next(iterator)))
    os.waitpid(child, 0)


def test_a_background_loader_and_torchs_dataloader_deliver_the_same():
    expected = [joined([batch]) for batch in make(num_epochs=1)]
    background = BackgroundLoader(make(num_epochs=1), num_ahead=3)
    assert [joined([batch]) for batch in background] == expected
    steps = StepDataset(make(num_epochs=1))
    assert [joined([batch]) for batch in steps.dataloader(num_workers=0)] == expected


@pytest.mark.parametrize("way", WAYS)
def test_trainers_take_its_batches_and_go_on_where_they_stopped(way):
    expected = [joined([make(way, size=4).batch_at(0, step)]) for step in range(5)]
    epochs = Epochs(make(way, size=4))
    assert [joined([batch]) for _, batch in zip(range(3), epochs, strict=False)] == expected[:3]
    later = Epochs(make(way, size=4))
    later.load_state_dict(epochs.state_dict())
    assert joined([next(iter(later))]) == expected[3]
    of_trainer = iter(hf_dataloader(make(way, size=4)))
    assert [joined([next(of_trainer)]) for _ in range(5)] == expected


def test_a_background_loader_has_the_state_of_what_was_delivered():
    background = BackgroundLoader(make(), num_ahead=6)
    iterator = iter(background)
    for _ in range(3):
        next(iterator)
    later = make()
    later.load_state_dict(background.state_dict())
    assert joined([next(iter(later))]) == joined([next(iterator)])


def test_what_making_took_is_known_by_phase():
    loader = make()
    for _ in range(3):
        next(iter(loader))
    assert {"read", "prepare", "collate", "wait"} <= set(loader.times.seconds())
    assert loader.waits.steps == 2


def test_an_error_of_a_users_code_says_which_example(monkeypatch):
    loader = make("a row each")
    monkeypatch.setattr(Fetching, "_make", lambda *_: {}["image"])
    with pytest.raises(KeyError) as caught:
        next(iter(loader))
    assert any("of Toys" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("way", WAYS)
def test_an_example_that_no_row_has_room_for_is_counted_and_nothing_is_cut(way):
    toys = Toys(40)
    toys.lengths[7] = 100
    loader = make(way, toys=toys, size=4, num_epochs=1)
    delivered = [number for batch in loader for number in numbers(batch)]
    assert 7 not in delivered
    assert loader.rejects == {"too_long": 1}
    assert loader.account().total.rejected == {"too_long": 1}
    if way == "a row each":
        assert sorted([*delivered, 7]) == list(range(40))


def test_examples_that_are_longer_than_they_were_measured_are_not_cut(monkeypatch):
    monkeypatch.setattr(Plain, "room", lambda *_: Room(num_tokens=10, num_crops=0, num_pooled=0))
    with pytest.raises(UserError, match=r"have \d+ ids, and there is room for 64: they are not what was measured"):
        list(make("packed in one budget", num_epochs=1))


def test_an_order_without_anything_that_fits_ends_with_the_reasons():
    toys = Toys(40)
    toys.lengths = [100] * 40
    with pytest.raises(UserError, match=r"less than one global batch of 8 rows: .*left out: 40 too_long"):
        make(toys=toys)
    mixed = IterableDatasetMixture({"a": toys, "b": toys}, weights=[1, 1])
    with pytest.raises(UserError, match=r"none of \d+ examples that follow each other has a place in a row: 4096 too"):
        MultimodalLoader(mixed, Plain(toys), global_batch_size=2, packing=64, rank=0, world_size=1)


def test_an_error_while_measuring_says_which_example(monkeypatch):
    monkeypatch.setattr(Plain, "measure", lambda *_: {}["image"])
    with pytest.raises(KeyError) as caught:
        next(iter(make()))
    assert any("of Toys, when it was measured" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("packing", [Concat(length=64), Concat(length=64, cuts=False), BestFit(length=64, cuts=True)])
def test_a_packing_that_cuts_is_refused(packing):
    toys = Toys(9)
    with pytest.raises(UserError, match="cuts examples, and raw ones stay whole"):
        MultimodalLoader(toys, Plain(toys), global_batch_size=2, packing=packing, rank=0, world_size=1)


def test_one_loader_has_one_preprocessor():
    toys = Toys(9)
    both = [DeterministicDataset(toys, Plain(toys, salt=salt)) for salt in (1, 2)]
    with pytest.raises(UserError, match="have different preprocessors: pass preprocessor="):
        MultimodalLoader(IterableDatasetMixture(both), global_batch_size=2, rank=0, world_size=1)
    MultimodalLoader(IterableDatasetMixture(both[:1] * 2), global_batch_size=2, rank=0, world_size=1)
    with pytest.raises(UserError, match="does not know preprocessor_kwargs"):
        MultimodalLoader(
            DeterministicDataset(toys, Plain(toys), preprocessor_kwargs={"a": 1}),
            global_batch_size=2,
            rank=0,
            world_size=1,
        )


def test_what_is_missing_or_meant_otherwise_is_said():
    toys = Toys(9)
    with pytest.raises(UserError, match=r"str has not: open it with get_dataset\('/data/x'\)"):
        MultimodalLoader("/data/x", Plain(toys), global_batch_size=2, rank=0, world_size=1)
    with pytest.raises(UserError, match="num_threads=-1, expected at least 1"):
        make(num_threads=-1)
    with pytest.raises(UserError, match="a preprocessor is needed"):
        MultimodalLoader(toys, global_batch_size=2, rank=0, world_size=1)
    with pytest.raises(UserError, match="max_crops is the second budget of packed rows"):
        MultimodalLoader(toys, Plain(toys), global_batch_size=2, max_crops=3, rank=0, world_size=1)
    mixed, plain = mixture()
    with pytest.raises(UserError, match="order is for one dataset"):
        MultimodalLoader(mixed, plain, global_batch_size=2, order="sequential", rank=0, world_size=1)


def test_wide_seeds_are_those_of_the_documents():
    """A DeterministicDataset of this seed makes the same examples."""
    loader = make("a row each", seed=42)
    batch = next(iter(loader))
    for row in batch["metadata"]:
        rng = np.random.RandomState((42 * 195172 + row["number"]) % (2**32 - 1))
        assert row["draw"] == rng.randint(1000)


class Stored(Toys):
    """Toys whose lengths are stored, but for those that are drawn anew."""

    def __init__(self, size: int, drawn: set[int]) -> None:
        super().__init__(size)
        self.drawn, self.asked = drawn, 0

    def measures(self, items):
        self.asked += len(items)
        plain = Plain(self)
        measures = [plain.measure({"number": item, "kind": None}, None) for item in items.tolist()]
        drawn = [
            dataclasses.replace(m, is_drawn=i in self.drawn) for m, i in zip(measures, items.tolist(), strict=True)
        ]
        return Measures.of(drawn, "")


class Quick(Plain):
    def rooms(self, measures):
        assert not measures.is_drawn.any()
        lengths = measures.num_tokens.astype(np.int64)
        return lengths, lengths % 4, lengths * 0, lengths * 0


@pytest.mark.parametrize("drawn", [set(), {3, 5, 40}, set(range(90))])
def test_stored_lengths_are_used_where_texts_are_not_drawn_anew(drawn):
    toys = Stored(90, drawn)
    options = {"consumer": "molmo", "seed": 3, "rank": 0, "world_size": 1, "num_epochs": 1, **PACKED}
    loader = MultimodalLoader(toys, Quick(toys), global_batch_size=4, **options)
    steps = loader.num_steps(0)
    assert set(toys.got) == drawn, "those alone are read to know their lengths"
    assert toys.asked >= 90
    plain = make(size=4, num_epochs=1)
    assert [joined([batch]) for batch in loader] == [joined([batch]) for batch in plain]
    assert steps == plain.num_steps(0)
