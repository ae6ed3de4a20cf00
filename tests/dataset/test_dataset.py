"""python -m pytest tests/dataset/test_dataset.py"""

import itertools
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset import dataset as dataset_module
from hpcdata.dataset import parts as parts_module
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.samples import Example, Kind, Role, Span
from hpcdata.shards.columns import columns
from tests.loading import made


def assert_equal(found: Example, expected: Example) -> None:
    assert (found.index, found.key, len(found.spans)) == (expected.index, expected.key, len(expected.spans))
    for ours, theirs in zip(found.spans, expected.spans, strict=True):
        assert (ours.kind, ours.role, ours.loss) == (theirs.kind, theirs.role, theirs.loss)
        assert (ours.height, ours.width) == (theirs.height, theirs.width)
        assert ours.ids.tolist() == theirs.ids.tolist()


def conversations(num_samples: int, vocab_size: int, seed: int = 0) -> list[Example]:
    """Zero to four spans of any kind and length, ids up to the end of the vocabulary."""
    rng = np.random.default_rng(seed)

    def span() -> Span:
        ids = rng.integers(0, vocab_size, rng.integers(0, 9) ** 2).tolist()
        if rng.random() < 0.4 and ids:
            return made.image(*ids)
        return made.text(*ids, role=Role(int(rng.integers(4))), loss=bool(rng.integers(2)))

    return [
        Example(index=5 * row + 2, key=f"Schlüssel/{row}🗝", spans=tuple(span() for _ in range(rng.integers(5))))
        for row in range(num_samples)
    ]


@pytest.fixture(params=["uint16", "int32"])
def made_dataset(request, tmp_path):
    examples = conversations(60, vocab_size=65536 if request.param == "uint16" else 2**31)
    return made.make_dataset(tmp_path, made.split(examples), id_dtype=request.param), examples


def test_every_example_comes_back(made_dataset):
    folder, examples = made_dataset
    dataset = TokenDataset(folder)
    assert len(dataset) == 60
    for row, expected in enumerate(examples):
        assert_equal(dataset[row], expected)
        assert_equal(dataset[row - 60], expected)
    for found, expected in zip(
        dataset.__getitems__([59, 0, 7, 7]), [examples[row] for row in (59, 0, 7, 7)], strict=True
    ):
        assert_equal(found, expected)
    assert [example.key for example in dataset] == [example.key for example in examples]


@pytest.mark.parametrize("row", [60, -61])
def test_rows_outside_are_refused(made_dataset, row):
    dataset = TokenDataset(made_dataset[0])
    with pytest.raises(IndexError, match="60 samples"):
        dataset[row]
    with pytest.raises(IndexError, match="60 samples"):
        dataset.spans(np.array([0, row]))


def test_span_table_and_windows_agree_with_examples(made_dataset):
    """Random rows with repetitions, across parts; windows as long as the longest span reach over the ends of parts."""
    folder, examples = made_dataset
    dataset = TokenDataset(folder)
    rows = np.random.default_rng(1).integers(0, 60, 200)
    table = dataset.spans(rows)
    assert table.index.tolist() == [examples[row].index for row in rows]
    windows = dataset.windows(table.part, table.first_token, int(table.length.max()))
    for row, expected in enumerate(examples[row] for row in rows):
        spans = np.flatnonzero(table.row == row)
        assert len(spans) == len(expected.spans)
        for at, span in zip(spans, expected.spans, strict=True):
            assert (table.kind[at], table.flags[at]) == (span.kind, span.flags)
            assert (table.height[at], table.width[at]) == (span.height, span.width)
            assert windows[at, : table.length[at]].tolist() == span.ids.tolist()


def test_select_keeps_the_rows(made_dataset):
    table = TokenDataset(made_dataset[0]).spans(np.arange(60))
    images = table.select(table.kind == Kind.IMAGE)
    assert images.num_rows == 60
    assert set(images.kind.tolist()) == {Kind.IMAGE}
    assert len(images.row) == sum(span.kind == Kind.IMAGE for example in made_dataset[1] for span in example.spans)


def test_windows_longer_than_a_part(tmp_path):
    examples = [Example(index=row, key=str(row), spans=(made.text(*range(row, row + 3)),)) for row in range(3)]
    dataset = TokenDataset(made.make_dataset(tmp_path, [[example] for example in examples]))
    windows = dataset.windows(np.array([0, 1, 2]), np.array([0, 1, 3]), 4)
    assert windows.tolist() == [[0, 1, 2, 0], [2, 3, 0, 0], [0, 0, 0, 0]]
    assert dataset.windows(np.array([0, 1]), np.array([0, 1]), 0).shape == (2, 0)


def test_ids_are_read_only_views(made_dataset):
    dataset = TokenDataset(made_dataset[0])
    ids = next(span.ids for example in dataset for span in example.spans if len(span.ids))
    assert str(ids.dtype) == dataset.manifest.id_dtype
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1
    kept = ids.tolist()
    del dataset
    assert ids.tolist() == kept  # a view keeps its map


def test_parts_are_opened_when_wanted_and_hold_no_descriptor(made_dataset):
    dataset = TokenDataset(made_dataset[0])
    before = len(os.listdir("/proc/self/fd"))
    assert not dataset._open_parts
    dataset[0]
    assert list(dataset._open_parts) == [0]
    list(dataset)
    assert len(dataset._open_parts) == 5  # the second has no samples
    assert len(os.listdir("/proc/self/fd")) == before


def test_maps_are_given_back(made_dataset, monkeypatch):
    def count() -> int:
        with open("/proc/self/maps") as maps:
            return sum(str(made_dataset[0]) in line for line in maps)

    monkeypatch.setattr(dataset_module, "_MAX_OPEN_PARTS", 2)
    monkeypatch.setattr(parts_module, "MAX_MAPS", 4 * 9)
    dataset = TokenDataset(made_dataset[0])
    for row in range(60):
        assert_equal(dataset[row], made_dataset[1][row])
        assert len(dataset._open_parts) <= 2
    assert 0 < count() <= 2 * (9 + 3)
    del dataset
    assert count() == 0


@pytest.mark.parametrize("column", ["tokens/ids", "spans/length", "samples/first_token", "keys/bytes"])
def test_a_damaged_part_is_named_when_opened(made_dataset, column):
    file = made_dataset[0] / "parts" / "00003-of-00006" / f"{column}.memmap"
    dataset = TokenDataset(made_dataset[0])
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    dataset[0]
    with pytest.raises(
        UserError, match=rf"{column}.memmap has {len(content) - 1} bytes, the manifest says {len(content)}"
    ):
        dataset[30]
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        dataset[30]
    file.write_bytes(content)
    assert_equal(dataset[30], made_dataset[1][30])


def test_what_is_open_can_be_deleted(made_dataset):
    """A part that was wanted before stays readable, one that was not is named."""
    folder, examples = made_dataset
    dataset = TokenDataset(folder)
    dataset[0], dataset.spans(np.array([0]))
    shutil.rmtree(folder / "parts")
    assert_equal(dataset[6], examples[6])
    assert dataset.spans(np.array([3])).index.tolist() == [examples[3].index]
    for _ in range(2):
        with pytest.raises(UserError, match=r"00003-of-00006.* is missing"):
            dataset[30]


@pytest.mark.parametrize(("rows", "is_random"), [([5, 3, 40], True), ([3, 5, 40], False)])
def test_the_kernel_is_told_how_it_is_read(made_dataset, rows, is_random):
    dataset = TokenDataset(made_dataset[0])
    dataset.spans(np.array(rows))
    with open("/proc/self/smaps") as smaps:
        maps = smaps.read().split("VmFlags:")
    flags = [after.splitlines()[0].split() for at, after in itertools.pairwise(maps) if str(dataset.path) in at]
    assert len(flags) >= 9
    assert {"rr" in of_map for of_map in flags} == {is_random}


def test_what_will_be_read_is_asked_for(made_dataset, monkeypatch):
    """All bytes of all columns of the rows, across parts, and few others."""
    asked = []
    monkeypatch.setattr(parts_module, "will_need", lambda ranges: asked.append(ranges) or True)
    dataset = TokenDataset(made_dataset[0])
    dataset.will_read(np.array([[3, 9], [58, 2]]))
    asked_bytes = set()
    for start, size in np.concatenate(asked).tolist():
        asked_bytes |= set(range(start, start + size))
    wanted = set()
    table, maps = dataset.spans(np.array([*range(3, 12), 58, 59])), dataset.maps
    for start, size in maps.range("tokens/ids").spans_of(table.first_token + maps.tokens[table.part], table.length):
        wanted |= set(range(int(start), int(start + size)))
    assert wanted <= asked_bytes
    row_bytes = sum(column.row_bytes for column in columns(dataset.manifest.id_dtype) if column.table == "spans")
    keys = ("samples/first_key.memmap", "keys/bytes.memmap")
    of_samples = [c for c in columns("uint16") if c.table == "samples" and c.path not in keys]
    assert len(asked_bytes) == len(wanted) + len(table.row) * row_bytes + 11 * sum(c.row_bytes for c in of_samples)


def test_pickle_reopens(made_dataset):
    dataset = TokenDataset(made_dataset[0])
    dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    assert not pickle.loads(data)._open_parts  # else it would carry the arrays
    assert_equal(pickle.loads(data)[31], made_dataset[1][31])


def _keys(dataset: TokenDataset, rows: list[int]) -> list[str]:
    return [dataset[row].key for row in rows]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_can_use_it(made_dataset, method):
    dataset = TokenDataset(made_dataset[0])
    dataset[0]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_keys, (dataset, [0, 59])) == _keys(dataset, [0, 59])


def test_torch_dataloader_with_workers(made_dataset):
    from torch.utils.data import DataLoader

    loader = DataLoader(TokenDataset(made_dataset[0]), batch_size=7, collate_fn=list, num_workers=1)
    found = [example for batch in loader for example in batch]
    for ours, theirs in zip(found, made_dataset[1], strict=True):
        assert_equal(ours, theirs)


def test_an_empty_dataset(tmp_path):
    dataset = TokenDataset(made.make_dataset(tmp_path, [[]]))
    assert (len(dataset), list(dataset)) == (0, [])
    assert dataset.spans(np.zeros(0, np.int64)).num_rows == 0


def test_maps_stay_few(tmp_path, monkeypatch):
    """What lies between two parts is a map, too: where they were closed, it is one with their places."""
    examples = made.pairs(300)
    monkeypatch.setattr(parts_module, "MAX_MAPS", 9 * 300 + 100)  # enough for the files alone
    dataset = TokenDataset(made.make_dataset(tmp_path, [[example] for example in examples]))
    with open("/proc/self/maps") as maps:
        before = len(maps.readlines())
    for rows in np.random.default_rng(0).permutation(3000).reshape(-1, 50) % 300:
        table = dataset.spans(rows)
        assert table.index.tolist() == [examples[row].index for row in rows]
        assert table.flags.tolist() == [span.flags for row in rows for span in examples[row].spans]
        with open("/proc/self/maps") as maps:
            assert len(maps.readlines()) - before <= parts_module.MAX_MAPS
    assert len(dataset.maps._opened) > 100


@pytest.mark.parametrize("passed_over", [0, 16])
def test_what_is_closed_is_joined_with_its_neighbours(tmp_path, monkeypatch, passed_over):
    monkeypatch.setattr(parts_module, "_PASSED_OVER", passed_over)
    dataset = TokenDataset(made.make_dataset(tmp_path, [[example] for example in made.pairs(40)]))
    rows = np.random.default_rng(0).permutation(40)
    dataset.spans(np.array([7, 7, 6]))
    maps = dataset.maps

    def count() -> int:
        ranges = [(column._address, column._address + column._owner._num_bytes) for column in maps._ranges.values()]
        with open("/proc/self/maps") as lines:
            starts = [int(line.split("-")[0], 16) for line in lines]
        return sum(first <= start < end for start in starts for first, end in ranges)

    before = count()
    dataset.spans(rows)
    assert count() > 7 * 40
    maps._close([part for part in maps._opened if part not in (6, 7)])
    assert count() == before
