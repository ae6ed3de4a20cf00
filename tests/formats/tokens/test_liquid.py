"""Liquid's folders are what its training reads.   pytest tests/formats/tokens/test_liquid.py"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdata import export
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import read_manifest
from hpcdata.dataset.partlist import Parts
from hpcdata.formats.target import problems_of, read_target
from hpcdata.formats.tokens.liquid import FORMAT
from hpcdata.formats.tokens.strings import CodeTexts, json_list
from hpcdata.samples import Example, RawText, Role, Span
from hpcdata.shards.counts import Counts
from tests.formats.tokens.exports import read_by
from tests.formats.tokens.liquid_reader import COLUMNS, collate, read
from tests.loading import made

RNG = np.random.default_rng(3)
SQUARE = {
    "image": {**made.IMAGE, "codebook_size": 8192},
    "layout": {**made.LAYOUT, "resolution": 512},
    "text": None,
    "config": {"text": {"keep_raw": True}, "data": {"sizes": None}},
}
MULTI = {
    **SQUARE,
    "layout": {**made.LAYOUT, "resolution": None},
    "config": {"text": {"keep_raw": True}, "data": {"sizes": "multi768"}},
}


def raw(*texts: str, role: Role = Role.NONE, place: int = 0) -> tuple[RawText, ...]:
    return tuple(RawText(data=text.encode(), role=role, place=place) for text in texts)


def picture(height: int = 32, width: int = 32) -> Span:
    return made.image(*RNG.integers(0, 8192, height * width), height=height, width=width)


def example(row: int, texts: Sequence[RawText], *spans: Span) -> Example:
    return Example(index=row, key=f"k{row}", spans=spans, texts=tuple(texts))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return [example(row, raw(f"cäption {row} 🗝"), picture()) for row in range(57)]


@pytest.fixture(scope="module")
def texts() -> list[Example]:
    return [example(row, raw(f"page {row}\n\n鍵 “x” \\ 🗝" * (row % 5 + 1))) for row in range(40)]


def exported(folder: Path, parts: Sequence[Sequence[Example]], *options: str, **manifest: Any) -> Path:
    dataset = made.make_dataset(folder / "dataset", parts, **{**SQUARE, **manifest})
    assert export.main([str(dataset), str(folder / "out"), "--format", "liquid", *options]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def of_pairs(tmp_path_factory: pytest.TempPathFactory, pairs: list[Example]) -> Path:
    return exported(tmp_path_factory.mktemp("pairs"), made.split(pairs), "--num-shards", "4")


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory: pytest.TempPathFactory, texts: list[Example]) -> Path:
    return exported(tmp_path_factory.mktemp("texts"), made.split(texts), image=None)


def expected(item: Example) -> dict[str, Any]:
    """A row as Liquid's own scripts write it."""
    text = "".join(text.text for text in item.texts)
    codes = [span.ids.tolist() for span in item.spans]
    return {
        "data_type": "image_text" if codes else "text_pretrain",
        "text": text,
        "length": len(text) + 4 * len(codes[0] if codes else []),
        "vqcode_512": json.dumps(codes[0]) if codes else "no",
        "vqcode_multi768": "no",
        "width": "no",
        "height": "no",
    }


def test_rows_are_those_of_liquids_own_scripts(of_pairs: Path, of_texts: Path, pairs, texts) -> None:
    for path, items in ((of_pairs, pairs), (of_texts, texts)):
        assert len(read(str(path))) == len(items)
        rows = list(read(str(path), seed=0))
        assert [list(row) for row in rows] == [COLUMNS] * len(items)
        wanted = [expected(item) for item in items]
        assert sorted(rows, key=str) == sorted(wanted, key=str)
        assert rows != wanted
        assert problems_of(path) == []  # though datasets has left its order there, in cache-....arrow


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i4", "<i8"])
def test_ids_are_spelled_as_json_does(dtype: str) -> None:
    for ids in ([], [0], [7, 10, 0, 100, 255]):
        assert json_list(np.array(ids, dtype)).decode() == json.dumps(ids)


def code_texts(*lists: list[int] | None) -> list[str]:
    items = [[0, *(codes or [])] for codes in lists]
    first = np.cumsum([0, *map(len, items)])
    has_list = np.array([codes is not None for codes in lists])
    found = CodeTexts(8192, without=b"no").of(np.concatenate(items).astype(np.int32), first, has_list)
    return [found.array(row, row + 1).to_pylist()[0] for row in range(len(lists))]


def test_codes_are_spelled_as_json_does() -> None:
    lists = [[0], [0, 8191], [], [7, 10, 0, 100, 8191, 1000]]
    assert code_texts(lists[0], None, *lists[1:]) == [json.dumps([0]), "no", *map(json.dumps, lists[1:])]


@pytest.mark.parametrize("wrong", [-1, 8192])
def test_what_is_no_code_is_told_instead_of_spelled(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"it has code {wrong}, and there are 8192"):
        code_texts([1, 2], [3, wrong, 4])


def test_several_folders_are_read_as_one(of_pairs: Path, of_texts: Path, pairs, texts) -> None:
    both = read(f"{of_pairs}^^{of_texts}", "0.5^^1.0")
    found = [collate(row) for row in both]
    assert [item["kind"] for item in found].count("pair") == int(len(pairs) * 0.5)
    assert [item["kind"] for item in found].count("text") == len(texts)
    known = {item.texts[0].text: (item.spans[0].ids + 256_000).tolist() for item in pairs}
    assert all(item["codes"] == known[item["text"]] for item in found if item["kind"] == "pair")


def test_there_are_as_many_files_as_asked_for_and_the_order_is_that_of_the_seed(tmp_path: Path, of_pairs: Path, pairs):
    files = sorted(path.name for path in of_pairs.glob("data-*.arrow"))
    assert files == [f"data-{number:05d}-of-00004.arrow" for number in range(4)]
    orders = {}
    for seed in ("42", "7"):
        out = exported(tmp_path / seed, [pairs], "--shuffle-seed", seed, "--num-shards", "1")
        orders[seed] = [row["text"] for row in read(str(out), seed=0)]
    assert orders["42"] == [row["text"] for row in read(str(of_pairs), seed=0)]
    assert orders["42"] != orders["7"]
    assert sorted(orders["42"]) == sorted(orders["7"])


@pytest.mark.parametrize(
    ("num_rows", "num_shards"), [(1, 1), (1000, 1), (2001, 3), (10**6, 256), (10**9, math.ceil(10**9 * 6344 / 2**30))]
)
def test_files_are_256_neither_tiny_nor_huge(tmp_path: Path, num_rows: int, num_shards: int) -> None:
    manifest = read_manifest(made.make_dataset(tmp_path / "dataset", [[ODD[0][0]]], **SQUARE))
    parts = Parts.of([dataclasses.replace(manifest.parts[0], samples=num_rows)])
    counts = Counts(inputs=num_rows, written=num_rows, image_tokens=1024 * num_rows, images=num_rows)
    large = dataclasses.replace(manifest, parts=parts, counts=counts)
    assert FORMAT.settle(ExportConfig(format="liquid"), large).num_shards == num_shards


def test_old_datasets_read_it(of_pairs: Path, of_texts: Path, pairs: list[Example]) -> None:
    code = (
        "import datasets, sys\n"
        "rows = datasets.concatenate_datasets([datasets.load_from_disk(path) for path in sys.argv[1:]])\n"
        "print(datasets.__version__, len(rows), rows[0]['length'], rows.shuffle(seed=42)[0]['data_type'])"
    )
    told = read_by("HPCDATA_TEST_OLD_DATASETS", code, of_pairs, of_texts)
    assert told.startswith("2.21")
    assert f" {len(pairs) + 40} " in told


def test_pictures_of_several_sizes_have_their_size_and_a_column_of_their_own(tmp_path: Path) -> None:
    sizes = [(48, 48), (36, 64), (64, 36)]
    items = [example(row, raw(f"a {row}"), picture(*sizes[row % 3])) for row in range(9)]
    out = exported(tmp_path, [items], **MULTI)
    rows = {row["text"]: row for row in read(str(out))}
    for row, item in enumerate(items):
        found, (height, width) = rows[f"a {row}"], sizes[row % 3]
        assert (found["width"], found["height"]) == (str(16 * width), str(16 * height))
        assert (found["data_type"], found["vqcode_512"]) == ("image_text", "no")
        assert json.loads(found["vqcode_multi768"]) == item.spans[0].ids.tolist()
        assert found["length"] == len(found["text"]) + 4 * height * width
        assert collate(found, "multi768")["text"] == f"{16 * width} x {16 * height}: a {row}"


ODD = [
    (example(0, raw("good"), picture()), None),
    (example(1, raw("two"), picture(), picture()), "too_many_images"),
    (example(2, (), picture()), "missing_text"),
    (example(3, raw("no")), "bad_example"),
    (example(4, raw("no"), picture()), None),
    (example(5, raw("hi", role=Role.USER)), "bad_example"),
    (example(6, raw("one", "two")), None),
]


def test_what_liquid_cannot_read_is_a_reject(tmp_path: Path) -> None:
    out = exported(tmp_path, [[item for item, _ in ODD]], "data.max_rejected=1")
    rows = read(str(out))
    assert sorted(row["text"] for row in rows) == ["good", "no", "one\ntwo"]
    assert all(collate(row) for row in rows)
    reasons = [reason for _, reason in ODD if reason]
    assert read_target(out).counts.rejected == {reason: reasons.count(reason) for reason in reasons}


def test_conversations_become_texts_where_they_are_asked_for(tmp_path: Path) -> None:
    said = [
        RawText(data=b"Be short.", role=Role.SYSTEM, place=0),
        RawText(data=b"\nWhat is it?", role=Role.USER, place=1),
        RawText(data=b"A cat.", role=Role.ASSISTANT, place=1),
        RawText(data=b"Sure?", role=Role.USER, place=1),
    ]
    without = [dataclasses.replace(text, place=0) for text in said[:3]]
    out = exported(tmp_path, [[example(0, said, picture()), example(1, without)]], "--conversations", "sft")
    rows = {row["data_type"]: row for row in read(str(out))}
    talk = "SYSTEM: Be short.\nUSER: <image>\nWhat is it?\nASSISTANT: A cat.\nUSER: Sure?"
    assert rows["image_text_sft"]["text"] == talk
    assert len(json.loads(rows["image_text_sft"]["vqcode_512"])) == 1024
    assert rows["text_sft"]["text"] == "SYSTEM: Be short.\nUSER: \nWhat is it?\nASSISTANT: A cat."


def test_pairs_that_liquid_would_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [example(row, raw("x"), made.text(*range(number)), picture()) for row, number in enumerate((5, 20, 21, 22))]
    items.append(example(9, raw("a page"), made.text(*range(100))))
    out = exported(tmp_path, [items], "--max-length", str(1027 + 1 + 20), text=made.TEXT)
    assert "2 pairs have more than 1048 ids" in capsys.readouterr().err
    assert read_target(out).facts["pairs_beyond_max_length"] == 2
    assert len(read(str(out))) == 5


@pytest.mark.parametrize(
    ("manifest", "options", "message"),
    [
        ({"layout": {**made.LAYOUT, "resolution": 256}}, (), "pictures of 256 pixels, and Liquid reads codes of 512"),
        ({}, ("--max-length", "2048"), "counts the ids of texts, and the dataset has none"),
        ({}, ("--columns", "key"), "--columns is no option of --format liquid"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, capsys, manifest, options, message: str) -> None:
    dataset = made.make_dataset(tmp_path / "dataset", [[ODD[0][0]]], **{**SQUARE, **manifest})
    assert export.main([str(dataset), str(tmp_path / "out"), "--format", "liquid", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_texts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = made.make_dataset(tmp_path / "dataset", [made.pairs(3)])
    assert export.main([str(dataset), str(tmp_path / "out"), "--format", "liquid"]) == 2
    assert "text.keep_raw=true" in capsys.readouterr().err
