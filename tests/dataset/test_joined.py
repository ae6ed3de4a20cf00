"""Datasets of many parts: small columns are joined in one file each, and nothing else changes.

pytest tests/dataset/test_joined.py
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from hpcdata import Mixture, Source, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.dataset import joined, parts
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify_dataset
from hpcdata.loading.layouts.named import T2I, Text
from tests import made


@pytest.fixture(autouse=True)
def _few_parts_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "MIN_PARTS", 4)


def joined_run(folder: Path, **options: bool) -> Path:
    """A dataset of 4 parts."""
    made.run(folder)
    combine(folder, CombineOptions(**options))
    return folder / "dataset"


def maps_of(folder: Path) -> list[str]:
    with open("/proc/self/maps") as maps:
        return [os.path.relpath(line.split()[-1], folder) for line in maps if str(folder) in line]


def test_batches_are_those_of_separate_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = TokenDataset(joined_run(tmp_path / "joined"))
    monkeypatch.setattr(joined, "MIN_PARTS", 10**9)
    few = TokenDataset(joined_run(tmp_path / "separate"))
    assert (bool(many.manifest.joined), bool(few.manifest.joined)) == (True, False)
    assert many.manifest.content_digest == few.manifest.content_digest
    for row in range(len(few)):
        assert [span.ids.tolist() for span in many[row].spans] == [span.ids.tolist() for span in few[row].spans]
        assert (many[row].key, many[row].index) == (few[row].key, few[row].index)
    for order in ("blocks", None):
        batches = [
            TokenLoader(
                each, global_batch_size=8, layout=T2I(block_size=64, num_image_tokens=16), num_epochs=2, order=order
            )
            for each in (many, few)
        ]
        for ours, theirs in zip(*batches, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_a_part_costs_one_map_and_one_open(tmp_path: Path) -> None:
    folder = joined_run(tmp_path / "run")
    dataset = TokenDataset(folder)
    table = dataset.spans(np.arange(len(dataset)))
    assert len(table.flags) == len(table.height) == len(table.kind)
    found = maps_of(folder)
    assert sorted(path for path in found if path.startswith("parts/")) == [
        f"parts/{shard:05d}-of-00004/tokens/ids.memmap" for shard in range(4)
    ]
    assert sorted(path for path in found if not path.startswith("parts/")) == sorted(
        f"columns/{column.path}" for column in joined.joined_columns("uint16")
    )


def test_parts_that_are_more_than_a_process_can_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_MAPS", 4)
    folder = joined_run(tmp_path / "run")
    dataset = TokenDataset(folder)
    for row in np.random.default_rng(0).permutation(len(dataset)):
        table = dataset.spans(np.array([row]))
        ids = dataset.ids(table.part, table.first_token, table.length)
        assert ids.tolist() == [number for span in dataset[row].spans for number in span.ids.tolist()]
        assert len(dataset.maps._opened) <= 2
        assert table.flags.tolist() == [span.flags for span in dataset[row].spans]


@pytest.mark.parametrize("column", [column.path for column in joined.joined_columns("uint16")])
def test_damage_is_found(tmp_path: Path, column: str) -> None:
    folder = joined_run(tmp_path / "run")
    assert not verify_dataset(folder).problems
    file = folder / "columns" / column
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert any(f"columns/{column}" in problem for problem in verify_dataset(folder).problems)
    file.write_bytes(data[:-1])
    with pytest.raises(UserError, match=f"columns/{column} has {len(data) - 1} bytes"):
        TokenDataset(folder).spans(np.arange(3))
    file.unlink()
    assert f"columns/{column} is missing" in verify_dataset(folder).problems
    with pytest.raises(UserError, match=f"columns/{column} is missing"):
        TokenDataset(folder).spans(np.arange(3))


def test_columns_of_other_parts_are_found_although_they_have_their_sha256(tmp_path: Path) -> None:
    folder = joined_run(tmp_path / "run")
    file = folder / "parts/00001-of-00004/spans/flags.memmap"
    file.unlink()
    file.write_bytes(b"\1" * 100)
    problems = verify_dataset(folder).problems
    assert "columns/spans/flags.memmap is not the columns of the parts" in problems


def test_a_compact_dataset_has_none(tmp_path: Path) -> None:
    folder = joined_run(tmp_path / "run")
    combine(tmp_path / "run", CombineOptions(compact=True))
    assert not (folder / "columns").exists()
    assert not verify_dataset(folder).problems


def test_a_mixture_of_joined_and_separate_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The joined columns of each are used; batches are those of separate ones, also where parts are closed again."""
    folders = [joined_run(tmp_path / "a"), joined_run(tmp_path / "c")]
    monkeypatch.setattr(joined, "MIN_PARTS", 10**9)
    separate = [joined_run(tmp_path / name) for name in "def"]
    many = [folders[0], separate[1], folders[1]]
    expected = batches_of(separate)
    assert batches_of(many) == expected
    dataset = TokenLoader(mixture_of(many), global_batch_size=8, layout=Text(max_length=40)).dataset
    dataset.spans(np.arange(len(dataset)))
    found = [path for path in maps_of(tmp_path) if "/parts/" in path]
    assert {path.split("/")[-2] for path in found if path.startswith(("a/", "c/"))} == {"tokens"}
    assert {path.split("/")[-2] for path in found if path.startswith("e/")} == {"tokens", "spans", "samples"}
    monkeypatch.setattr(parts, "MAX_MAPS", 100)
    assert batches_of(many) == expected


def mixture_of(folders: list[Path]) -> Mixture:
    return Mixture([Source(dataset=folder, name=str(at)) for at, folder in enumerate(folders)])


def batches_of(folders: list[Path]) -> list[tuple[list[list[int]], list[int]]]:
    loader = iter(TokenLoader(mixture_of(folders), global_batch_size=8, layout=Text(max_length=40)))
    return [(batch["input_ids"].tolist(), batch["index"].tolist()) for batch in itertools.islice(loader, 40)]
