"""python -m pytest tests/native/test_compiled.py"""

import contextlib
import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcdata import TokenDataset, TokenLoader
from hpcdata.dataset.dataset import SpanTable
from hpcdata.loading.layouts import assembly_compiled
from hpcdata.loading.layouts.assembly_compiled import tile
from hpcdata.loading.layouts.named import SFT, T2I, Caption, Interleaved, LiquidT2I, Text
from hpcdata.loading.layouts.sequences import Controls, Form, Lineup
from hpcdata.native import compiled
from hpcdata.native.compiled import kernels
from hpcdata.order.bins import Bins
from hpcdata.order.mixing.shuffling import ShuffledSources
from hpcdata.order.order import ShuffledOrder
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.order.permutation import round_keys
from hpcdata.samples import Example, Role
from tests.loading import made
from tests.selection import examples

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent.parent
UNTOUCHED = 77
MAPS = SimpleNamespace(tokens=np.zeros(1, np.int64))


@contextlib.contextmanager
def by_numpy():
    """As if the compiled loops were not there."""
    os.environ["HPCDATA_KERNELS"] = "0"
    kernels.cache_clear()
    try:
        yield
    finally:
        del os.environ["HPCDATA_KERNELS"]
        kernels.cache_clear()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Conversations with none to three images of several grids, empty texts and empty samples; several parts."""
    rng = np.random.default_rng(1)
    examples = []
    for row in range(150):
        spans = []
        for turn in range(int(rng.integers(0, 5))):
            if rng.random() < 0.4:
                side = int(rng.integers(1, 4))
                spans.append(made.image(*rng.integers(0, 16384, side * side)))
            else:
                ids = rng.integers(0, 32000, rng.integers(0, 12))
                spans.append(made.text(*ids, role=Role.ASSISTANT if turn % 2 else Role.USER, loss=bool(turn % 2)))
        examples.append(Example(index=2 * row, key=str(row), spans=tuple(spans)))
    return made.make_dataset(tmp_path_factory.mktemp("compiled") / "mixed", made.split(examples))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return made.make_dataset(tmp_path_factory.mktemp("compiled") / "pairs", made.split(made.pairs(150)))


ANY = [
    Interleaved(max_length=30, too_long="skip"),
    Interleaved(max_length=40, pad="to_8", too_long="skip"),
    SFT(max_length=40, pad="batch_max", too_long="skip"),
    Interleaved(max_length=30, too_long="skip", template="unidisc"),
    SFT(max_length=40, pad="batch_max", too_long="skip", template="unidisc"),
    Text(max_length=17),
    Text(max_length=17, ids="uint16"),
    Text(max_length=24, add_bos=False, pad_id=-1),
    Text(max_length=24, pad="batch_max"),
]
OF_PAIRS = [
    T2I(block_size=12),
    T2I(block_size=16, add_eos=False),
    LiquidT2I(max_length=48, unconditional_share=0.4),
    Caption(max_length=36, pad="to_8"),
]


def epoch_of(folder: Path, **options) -> list[dict[str, torch.Tensor]]:
    loader = TokenLoader(folder, seed=3, drop_last=False, num_epochs=2, **options)
    batches = list(loader)
    return [*batches, {"counts": torch.tensor(loader.counts)}]


def check_equal(folder: Path, **options) -> None:
    found = epoch_of(folder, **options)
    with by_numpy():
        expected = epoch_of(folder, **options)
    assert len(found) == len(expected)
    for mine, numpys in zip(found, expected, strict=True):
        assert mine.keys() == numpys.keys()
        for key in mine:
            assert mine[key].dtype == numpys[key].dtype, key
            assert torch.equal(mine[key], numpys[key]), key


@pytest.mark.parametrize("place", range(len(ANY)))
def test_batches_are_those_of_numpy(loops, dataset, place):
    check_equal(dataset, layout=ANY[place], global_batch_size=8)


@pytest.mark.parametrize("place", range(len(OF_PAIRS)))
@pytest.mark.parametrize("ids", ["int64", "uint16"])
def test_batches_of_pairs_are_those_of_numpy(loops, pairs, place, ids):
    check_equal(pairs, layout=dataclasses.replace(OF_PAIRS[place], ids=ids), global_batch_size=8)


@pytest.mark.parametrize(
    ("layout", "packing"),
    [
        (Interleaved(max_length=40, too_long="skip"), BestFit(length=64, window=50)),
        (SFT(max_length=40, too_long="skip"), BestFit(length=48, window=150)),
        (SFT(max_length=40, too_long="skip"), BestFit(length=48, window=150, max_images=1)),
        (Interleaved(max_length=40, too_long="skip"), Buckets(multiple=8, window=60)),
        (SFT(max_length=40, too_long="skip", template="unidisc"), BestFit(length=48, window=150)),
        (Text(), Concat(length=32, window=40)),
        (Text(add_bos=False, ids="uint16"), Concat(length=7, window=33)),
    ],
)
@pytest.mark.parametrize("world_size", [1, 3])
def test_packed_batches_are_those_of_numpy(loops, dataset, layout, packing, world_size):
    for rank in range(world_size):
        options = {"global_batch_size": 3, "rank": rank, "world_size": world_size}
        check_equal(dataset, layout=layout, packing=packing, **options)


@pytest.mark.parametrize("ids", ["int64", "uint16"])
def test_bins_with_padding_in_front_of_images_are_those_of_numpy(loops, pairs, ids):
    check_equal(pairs, layout=T2I(block_size=12, ids=ids), packing=Buckets(multiple=4, window=60), global_batch_size=4)


def test_batches_of_int32_ids_are_those_of_numpy(loops, tmp_path):
    folder = made.make_dataset(tmp_path / "wide", made.split(made.pairs(100)), id_dtype="int32")
    check_equal(folder, layout=T2I(block_size=12), global_batch_size=8)
    check_equal(folder, layout=Caption(max_length=36), packing=64, global_batch_size=4)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.integers(0, 300), max_size=200), st.integers(300, 2000))
def test_bins_are_those_of_numpy(loops, lengths, capacity):
    lengths, grids = np.array(lengths, np.int64), np.zeros(len(lengths), np.int64)
    packing = BestFit(length=capacity)
    found = packing.place(lengths, grids, 4)
    with by_numpy():
        expected = packing.place(lengths, grids, 4)
    for name in ("sample", "first_row", "width"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**62), st.integers(0, 2**40), st.data())
def test_the_permutation_is_that_of_numpy(loops, num_samples, seed, data):
    from hpcdata.order.order import ShuffledOrder

    positions = np.array(data.draw(st.lists(st.integers(0, num_samples - 1), max_size=50)), np.int64)
    order = ShuffledOrder(num_samples=num_samples, seed=seed)
    found = order.rows(1, positions)
    with by_numpy():
        assert found.tolist() == order.rows(1, positions).tolist()


runs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(-1, 40), st.integers(-5, 90)), max_size=12)


@settings(max_examples=examples(100), deadline=None)
@given(runs, st.sampled_from([np.uint16, np.int32]), st.sampled_from([np.int32, np.int64]), st.integers(-9, 9))
def test_runs_and_what_is_between_them(loops, runs, id_dtype, out_dtype, pad):
    """One plain loop for the three ways to write runs."""
    ids = np.random.default_rng(0).integers(0, 2**15, 60).astype(id_dtype)
    gap, length, start, value = np.array(runs, np.int64).reshape(-1, 4).T.copy()
    dest = np.cumsum(gap + length) - length
    size, base = int((gap + length).sum()) + 3, 1000
    placed, filled, counted = np.full((3, size), pad, out_dtype)
    for at, count, first, number in zip(dest, length, start, value, strict=True):
        placed[at : at + count] = number if first < 0 else ids[first : first + count].astype(out_dtype) + number
        filled[at : at + count] = number
        counted[at : at + count] = number + np.arange(count)
    for write, expected in (
        (loops.place_runs(ids, start, value, dest + base, length), placed),
        (loops.fill_runs(value, dest + base, length), filled),
        (loops.count_runs(value, dest + base, length), counted),
    ):
        out = np.full(size, UNTOUCHED, out_dtype)
        write(out, 0, len(dest), base, pad)
        assert out.tolist() == expected.tolist()


def place_rows(loops, start, length, *, rows=None, shape=(2, 6)):
    ids, out = np.arange(10, dtype=np.uint16), np.full(shape, UNTOUCHED)
    place = loops.place_rows(ids, np.array(start), np.array(length))
    with pytest.raises(IndexError):
        place(out, 0, len(start), rows, 0, 0)
    return out


def write_runs(loops, dest, length):
    ids, out = np.arange(10, dtype=np.uint16), np.full(8, UNTOUCHED)
    columns = [np.array(column, np.int64) for column in ((0, 0), (0, 0), dest, length)]
    for write in (loops.place_runs(ids, *columns), loops.fill_runs(*columns[1:]), loops.count_runs(*columns[1:])):
        with pytest.raises(IndexError):
            write(out, 0, 2, 0)
    return out


@pytest.mark.parametrize(
    ("start", "length", "options"),
    [
        ([0, 8], [2, 3], {}),  # behind the ids
        ([0, -1], [2, 2], {}),  # in front of them
        ([0, 2**62], [2, 2], {}),
        ([0, 1], [2, -1], {}),
        ([0, 1], [2, 7], {}),  # wider than the row
        ([0, 1, 2], [1, 1, 1], {}),  # more than there are rows
        ([0, 1], [1, 1], {"rows": np.array([0, 2])}),
        ([0, 1], [1, 1], {"rows": np.array([-1, 0])}),
    ],
)
def test_rows_outside_of_their_arrays_are_refused_and_nothing_is_written(loops, start, length, options):
    assert (place_rows(loops, start, length, **options) == UNTOUCHED).all()


@pytest.mark.parametrize(
    ("dest", "length"),
    [
        ((0, 6), (2, 3)),  # behind the batch
        ((-1, 4), (2, 2)),
        ((0, 1), (2, 2)),  # into each other
        ((4, 0), (2, 2)),  # out of order
        ((0, 2**62), (2, 2)),
        ((0, 4), (2, -1)),
    ],
)
def test_runs_outside_of_the_batch_are_refused_and_nothing_is_written(loops, dest, length):
    assert (write_runs(loops, dest, length) == UNTOUCHED).all()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_all_arrays_of_rows_at_once(loops, data):
    """By one thread and by several, rows in the middle of others; ids are copied, all or some, or there already."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    num_rows, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 40))
    dtype, out_dtype = data.draw(st.sampled_from([("u2", "u2"), ("u2", "i8"), ("i4", "i8")]))
    cuts = [np.sort(rng.integers(0, width + 1, rng.integers(0, 4))) for _ in range(num_rows)]
    length = np.concatenate([np.diff(cut, prepend=0, append=width) for cut in cuts])
    first_run = np.cumsum([0, *(len(cut) + 1 for cut in cuts)])
    kind = rng.integers(0, 8, len(length))
    ids, start = rng.integers(0, 30_000, 500).astype(dtype), rng.integers(0, 500 - width + 1, num_rows)
    first = data.draw(st.integers(0, num_rows - 1))
    stop = data.draw(st.integers(first, num_rows))
    dtypes = {"attention_mask": bool, "modality": np.int8, "loss_mask": bool, "position_ids": out_dtype}
    dtypes |= {"labels": np.int64} if out_dtype == "i8" else {}
    wanted = data.draw(st.sets(st.sampled_from(sorted(dtypes))))
    arrays = {key: np.full((stop - first, width), 1, dtypes[key]) for key in wanted}
    taken = data.draw(st.sampled_from([None, rng.integers(0, width + 1, num_rows)]))
    pad = data.draw(st.integers(0, 9))
    expected_ids = ids[start[first:stop, None] + np.arange(width)].astype(out_dtype)
    if taken is not None:
        expected_ids[np.arange(width) >= taken[first:stop, None]] = pad
    is_there, has_runs = data.draw(st.booleans()), bool(wanted) or data.draw(st.booleans())
    is_there &= has_runs
    arrays["input_ids"] = expected_ids.copy() if is_there else np.full_like(expected_ids, UNTOUCHED)
    torch.set_num_threads(data.draw(st.sampled_from([1, 3])))
    before = loops.set_min_bytes_each(1)
    try:
        write = loops.write_rows(
            width,
            (first_run, length, kind) if has_runs else None,
            None if is_there else (ids, start, taken),
            pad=pad,
        )
        if is_there or data.draw(st.booleans()):
            write(first, arrays)
        else:
            arrays = write.make(first, stop, {key: array.dtype for key, array in arrays.items()})
    finally:
        loops.set_min_bytes_each(before)
        torch.set_num_threads(1)
    kinds = np.repeat(kind, length).reshape(num_rows, width)[first:stop]
    valid, trained = kinds & 1 > 0, kinds & 4 > 0
    expected = {
        "input_ids": expected_ids,
        "attention_mask": valid,
        "modality": kinds & 2 > 0,
        "loss_mask": trained,
        "labels": np.where(trained, expected_ids, -100),
        "position_ids": np.where(valid, np.cumsum(valid, axis=1) - 1, 0),
    }
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, expected[key], key)


@pytest.mark.parametrize(
    ("first_run", "length", "start"),
    [
        ([0, 1, 2], [5, 6], [0, 4]),  # a row that is not full
        ([0, 1, 2], [6, 7], [0, 4]),
        ([0, 2, 3], [7, -1, 6], [0, 4]),
        ([0, 1, 3], [6, 6], [0, 4]),  # behind the runs
        ([0, 1, 0], [6, 6], [0, 4]),
        ([-1, 1, 2], [6, 6], [0, 4]),
        ([0, 1, 2], [6, 6], [0, 5]),  # behind the ids
        ([0, 1, 2], [6, 6], [-1, 4]),
    ],
)
def test_rows_that_their_runs_do_not_fill_are_refused_and_nothing_is_written(loops, first_run, length, start):
    ids, (runs, lengths, starts) = np.arange(10, dtype=np.uint16), map(np.array, (first_run, length, start))
    arrays = {"input_ids": np.full((2, 6), UNTOUCHED), "labels": np.full((2, 6), UNTOUCHED)}
    write = loops.write_rows(6, (runs, lengths, np.full(len(lengths), 5)), (ids, starts, None))
    with pytest.raises(IndexError):
        write(0, arrays)
    assert all((array == UNTOUCHED).all() for array in arrays.values())
    for first, wrong in ((1, arrays), (-1, arrays), (0, {**arrays, "modality": np.zeros((2, 5), np.int8)})):
        with pytest.raises(IndexError):
            write(first, wrong)
    with pytest.raises(IndexError):
        write(0, {**arrays, "labels": np.zeros((2, 12), np.int64)[:, ::2]})


@pytest.mark.parametrize(("start", "taken"), [((0, 6), (5, 5)), ((0, 0), (7, 5)), ((0, 0), (-1, 5)), ((0, -1), (5, 0))])
def test_ids_that_are_not_there_are_refused_and_nothing_is_written(loops, start, taken):
    ids, out = np.arange(10, dtype=np.uint16), np.full((2, 6), UNTOUCHED)
    write = loops.write_rows(6, None, (ids, np.array(start), np.array(taken)))
    with pytest.raises(IndexError):
        write(0, {"input_ids": out})
    assert (out == UNTOUCHED).all()
    for first, stop in ((1, 3), (-1, 1), (1, 0)):
        with pytest.raises(IndexError):
            write.make(first, stop, {"input_ids": np.dtype(np.int64)})


def test_runs_behind_the_ids_are_refused_and_nothing_is_written(loops):
    ids, out = np.arange(10, dtype=np.uint16), np.full(8, UNTOUCHED)
    columns = [np.array(column) for column in ((0, 9), (0, 0), (0, 4), (2, 2))]
    with pytest.raises(IndexError):
        loops.place_runs(ids, *columns)(out, 0, 2, 0)
    assert (out == UNTOUCHED).all()


@pytest.mark.parametrize("way", [contextlib.nullcontext, by_numpy])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("samples/first_span", value) for value in (-1, -4096, 39, 4096, 10**9, 2**63 - 1, -(2**63))),
        *(("samples/num_spans", value) for value in (-1, 27, 10**6, 2**31 - 1)),
        *(("samples/first_token", value) for value in (-1, -4096, 500, 4096, 2**63 - 1, -(2**63))),
        *(("spans/length", value) for value in (-1, -(2**31), 500, 2**31 - 1)),
    ],
)
def test_damaged_columns_are_errors(loops, tmp_path, way, column, value):
    """Offsets that point out of their part must never be followed: another part, or none, is behind it."""
    folder = made.make_dataset(tmp_path / "damaged", [made.pairs(20), made.pairs(20)])
    file = folder / "parts/00000-of-00002" / f"{column}.memmap"
    kept = file.read_bytes()
    values = np.frombuffer(kept, "<i8" if "first" in column else "<i4").copy()
    values[7] = value
    file.write_bytes(values.tobytes())
    with way():
        with pytest.raises(IndexError, match="the dataset is damaged"):
            TokenDataset(folder).spans(np.arange(40))
        file.write_bytes(kept)
        assert len(TokenDataset(folder).spans(np.arange(40)).row) == 80


def texts(*lengths: int) -> Lineup:
    """Samples of one text each."""
    columns = {name: np.zeros(len(lengths), np.int64) for name in ("index", "kind", "part", "first_token", "place")}
    table = SpanTable(**columns, row=np.arange(len(lengths)), length=np.array(lengths), maps=None)
    return Lineup(table, Form(), Controls())


def test_bins_that_are_too_full_are_refused(loops):
    bins = Bins(sample=np.arange(2), first_row=np.array([0, 2]), width=np.array([9]))
    assert tile(loops, texts(4, 5), bins, MAPS.tokens).first_run == [0, 2]
    with pytest.raises(IndexError):
        tile(loops, texts(5, 5), bins, MAPS.tokens)
    with pytest.raises(IndexError):
        loops.best_fit(np.array([5, 10]), 9)
    for first_row in ([0, 3, 2], [1, 2, 2]):
        bins = Bins(sample=np.arange(2), first_row=np.array(first_row), width=np.array([9, 9]))
        with pytest.raises(IndexError):
            tile(loops, texts(4, 5), bins, MAPS.tokens)
    for sample in ([0, 2], [-1, 1]):
        bins = Bins(sample=np.array(sample), first_row=np.array([0, 2]), width=np.array([9]))
        with pytest.raises(IndexError):
            tile(loops, texts(4, 5), bins, MAPS.tokens)
    with pytest.raises(TypeError):
        loops.best_fit(np.array([5, 10], np.int32), 99)


def test_a_document_of_many_texts_in_many_bins_needs_no_more_room(loops):
    num_spans, lineup = 1000, texts(*[7] * 1000)
    row = np.zeros(num_spans, np.int64)
    table = dataclasses.replace(lineup.spans, index=np.zeros(1, np.int64), row=row)
    start = np.arange(0, 7000, 5)
    bins = Bins(
        sample=np.zeros(1400, np.int64),
        first_row=np.arange(1401),
        width=np.full(1400, 5),
        start=start,
        length=np.full(1400, 5),
    )
    lineup = Lineup(table, Form(), Controls())
    assert tile(loops, lineup, bins, MAPS.tokens).first_run[-1] == len(np.union1d(start, np.arange(0, 7000, 7)))
    assert assembly_compiled._most_runs(lineup, bins) < 5000


def test_bins_may_be_longer_than_memory(loops):
    assert loops.best_fit(np.array([5, 10]), 2**60)[1].tolist() == [0, 2]


def test_positions_outside_of_the_order_are_refused(loops):
    keys = np.array(round_keys(0, 0))
    for positions, num_samples in (([0, 100], 100), ([-1], 100), ([0], 2**7 + 1)):
        with pytest.raises(IndexError):
            loops.permute(np.array(positions), num_samples, 7, keys)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, 5000), min_size=9, max_size=20),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=60),
    st.integers(0, 3),
)
def test_rows_of_many_sources_are_those_of_each(loops, sizes, draws, seed):
    """A source that is small begins anew millions of times."""
    shuffled = ShuffledSources(sizes, lambda source, epoch: seed + 7 * source + 1000 * epoch)
    source = np.arange(len(draws)) * 5 % len(sizes)
    times, within = np.divmod(np.array(draws), np.array(sizes)[source])
    rows = shuffled.rows(loops, 2, source, times, within)
    for at, found in enumerate(rows.tolist()):
        of = int(source[at])
        order = ShuffledOrder(num_samples=sizes[of], seed=seed + 7 * of + 2000)
        assert [found] == order.rows(int(times[at]), within[at : at + 1]).tolist()


def test_permutations_and_trees_that_do_not_fit_are_refused(loops):
    keys, sizes, bits = np.array([round_keys(0, 0)]), np.array([100]), np.array([7])
    for positions, which, size, num_bits in (
        ([100], [0], sizes, bits),
        ([-1], [0], sizes, bits),
        ([1], [1], sizes, bits),
        ([1], [-1], sizes, bits),
        ([1], [0], np.array([2**7 + 1]), bits),
        ([1], [0], sizes, np.array([63])),
        ([1], [0], sizes, np.array([1])),
    ):
        with pytest.raises(IndexError):
            loops.permute_each(np.array(positions), np.array(which), size, num_bits, keys)
    for positions, left, total, branches in (
        ([-1], [1], [2], [[-1, -2]]),
        ([1], [0], [2], [[-1, -2]]),
        ([1], [2], [2], [[-1, -2]]),
        ([1], [1], [2**31 + 1], [[-1, -2]]),
        ([1], [1], [2], [[0, -2]]),
        ([1], [1], [2], [[-1, 1]]),
    ):
        with pytest.raises(IndexError):
            loops.interleave(np.array(positions), np.array(left), np.array(total), np.array(branches))


def test_without_a_library_numpy_does_it(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    kernels.cache_clear()
    try:
        assert kernels() is None
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


@pytest.mark.parametrize("content", ["nonsense", "another version"])
def test_a_library_of_another_machine_or_version_is_not_used(loops, monkeypatch, tmp_path, caplog, content):
    (built,) = Path(compiled.__file__).parent.glob("_kernels*.so")
    copy = tmp_path / built.name
    shutil.copy(built, copy)
    if content == "nonsense":
        copy.write_bytes(b"no library")
    else:
        monkeypatch.setattr(compiled, "VERSION", compiled.VERSION + 1)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert kernels() is None
        assert "install hpcdata again" in caplog.text
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


def test_the_setting_is_looked_at(loops):
    code = "from hpcdata.native.compiled import kernels; print(kernels())"
    environment = {**os.environ, "HPCDATA_KERNELS": "0", "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout == "None\n"
