"""Names of samples in tars, and tars with other names.   pytest tests/formats/records/test_tar_keys.py"""

from __future__ import annotations

import contextlib
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.formats.records import tar_keys
from hpcdata.formats.records.copied import Copied, CopiedPart
from hpcdata.formats.records.splits import parse_ratios, split_shards
from hpcdata.formats.records.tar_members import open_tar
from hpcdata.shards.appending import AppendFile
from tests.formats.records.made import LINES, TARS, copied
from tests.selection import examples
from tests.work.test_task import make_tar

UNICODE = "Größe と 名前 " + "ü" * 120


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Copied:
    """Two tars whose names are the same, one with names that are odd, each a shard."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("a", "b"):
        pieces = [
            (f"{number:04d}.{end}", f"{name}{number}{end}".encode()) for number in range(3) for end in ("txt", "cls")
        ]
        make_tar(folder / f"in/{name}.tar", pieces)
    make_tar(folder / "in/c.tar", [("__notes.txt", b"n"), (f"{UNICODE}.txt", b"u"), ("0001-000000004.txt", b"taken")])
    run = copied(folder / "run", *TARS, "copy.needs=text", "data.shard_size=3", source=folder / "in")
    return Copied(run)


def write(part: CopiedPart, names: tar_keys.Names, path: Path) -> np.ndarray:
    with contextlib.closing(AppendFile(path)) as out:
        ends = tar_keys.write_renamed(part, names, out)
        out.sync()
    return ends


def renamed(copies: Copied) -> dict[str, tar_keys.Names]:
    names = tar_keys.Renames(copies.parts, [tar_keys.key_hashes(part) for part in copies.parts])
    found = {part.name: names.of(part) for part in copies.parts}
    assert len(names) == sum(map(len, found.values()))
    return found


def test_names_that_come_again_or_look_like_notes_are_given_others(twins: Copied) -> None:
    first, second, third = (part.name for part in twins.parts)
    found = renamed(twins)
    assert found[first] == {}
    assert found[second] == {0: "0000-000000003", 1: "0001-000000004-2", 2: "0002-000000005"}
    assert found[third] == {0: "notes-000000006"}


def test_a_tar_with_other_names_holds_the_same_and_is_indexed(twins: Copied, tmp_path: Path) -> None:
    for part in twins.parts:
        names = renamed(twins)[part.name]
        ends = write(part, names, tmp_path / f"{part.name}.tar")
        assert list(members(tmp_path / f"{part.name}.tar").values()) == list(members(part.stream).values())
        with tarfile.open(tmp_path / f"{part.name}.tar") as tar:
            starts = {item.name.partition(".")[0]: item.offset for item in reversed(tar.getmembers())}
        assert sorted(starts.values()) == ends.tolist()[:-1]
        assert (tmp_path / f"{part.name}.tar").stat().st_size % 10240 == 0
    everything = {name for path in tmp_path.glob("*.tar") for name in members(path)}
    assert len(everything) == 6 * 2 + 3
    assert f"{UNICODE}.txt" in everything


def test_a_tar_without_other_names_is_written_as_it_was(twins: Copied, tmp_path: Path) -> None:
    part = twins.parts[2]
    write(part, {}, tmp_path / "same.tar")
    assert (tmp_path / "same.tar").read_bytes() == part.stream.read_bytes()


def test_members_of_a_sample_are_where_the_part_says(twins: Copied) -> None:
    part = twins.parts[1]
    with open_tar(part) as tar:
        found = [(sample.key, [tar.read(item.offset, item.size) for item in sample.members]) for sample in tar]
    assert found == [(f"{number:04d}", [f"b{number}cls".encode(), f"b{number}txt".encode()]) for number in range(3)]


def test_a_part_whose_tar_is_not_as_it_says_is_refused(twins: Copied) -> None:
    part = CopiedPart(folder=twins.parts[0].folder)
    vars(part)["first_byte"] = part.first_byte + np.array([0, 512, 0])
    with open_tar(part) as tar, pytest.raises(ValueError, match="sample 0 is not at byte 0: run hpcdata verify"):
        list(tar)


def test_tokens_are_no_copied_records(tmp_path: Path) -> None:
    run = copied(tmp_path / "run", "image.tokenizer=none")
    with pytest.raises(UserError, match="holds tokens, and this export is for records that stage=copy has copied"):
        Copied(run)
    lines = Copied(copied(tmp_path / "lines", *LINES, "data.n_train_samples=3"))
    assert lines.form == "jsonl"


@given(st.lists(st.integers(1, 50), min_size=3, max_size=40), st.integers(0, 5))
@settings(max_examples=examples(30), deadline=None)
def test_every_shard_is_in_one_split_and_shares_are_near(counts: list[int], seed: int) -> None:
    named = {f"{number:05d}": count for number, count in enumerate(counts)}
    found = split_shards(named, parse_ratios("train:8,val:1,test:1"), seed)
    assert sorted(itertools.chain(*found.values())) == sorted(named)
    assert found == split_shards(dict(reversed(named.items())), parse_ratios("train:8,val:1,test:1"), seed)
    assert all(found.values())
    for name, share in (("val", 0.1), ("test", 0.1)):
        has = sum(named[shard] for shard in found[name])
        assert has <= share * sum(counts) + max(counts)


@pytest.mark.parametrize("text", ["train", "train:x", "train:-1,val:2", "a:1,a:2", "train:0", "b c:1", "train:inf"])
def test_shares_that_are_none_are_named(text: str) -> None:
    with pytest.raises(UserError, match="--split"):
        parse_ratios(text)


def test_too_few_shards_are_said() -> None:
    with pytest.raises(UserError, match=r"2 shards cannot be split into test, train, val: .*data\.shard_size"):
        split_shards({"a": 1, "b": 1}, parse_ratios("train:0.8,val:0.1,test:0.1"), 0)
