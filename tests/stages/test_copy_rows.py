"""Records as rows for Hugging Face's datasets.   pytest tests/stages/test_copy_rows.py

The tests with an older `datasets` need HPCDATA_TEST_OLD_DATASETS, a folder that tests/run.sh makes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcdata.dataset.verifying import verify
from hpcdata.formats import arrow
from hpcdata.formats.records.laying_out import export_records
from hpcdata.formats.records.options import RecordOptions
from hpcdata.formats.target import problems_of
from hpcdata.runs.plan import Plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import Batch
from hpcdata.shards.writing import ShardWriter
from hpcdata.stages.copy import rows as rows_module
from hpcdata.stages.copy.making import Copied, Copying
from hpcdata.work.prove import prove
from hpcdata.work.task import TaskOutcome, run_task
from tests.formats.records.made import TARS, copied, read_with, write_lines
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import sha256_tree
from tests.work.test_task import make_tar, png

PAIRS = (*TARS, "copy.format=hf")
RECORDS = (*PAIRS, "copy.columns=records")
READ = """
import hashlib, io, json, sys
import datasets
assert datasets.__version__.startswith(sys.argv[2]), datasets.__version__
found = datasets.load_from_disk(sys.argv[1])
def plain(value):
    if hasattr(value, "tobytes"):
        return [*value.size, hashlib.sha256(value.convert("RGB").tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
splits = dict(found) if isinstance(found, dict) else {"": found}
print(json.dumps({name: [plain(dict(row)) for row in split] for name, split in splits.items()}))
"""
TALK = [{"from": "human", "value": "<image>\nWas?"}, {"from": "gpt", "value": "Ein 猫."}]
ODD = 'Größe \U0001f600 "quoted" 名前'


@pytest.fixture(params=["HPCDATA_TEST_OLD_DATASETS", "HPCDATA_TEST_READERS"])
def reader(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Where a version of datasets is, and which: 2.21 in a folder of its own, or the one that is installed."""
    return request.param, "2.21" if "OLD" in request.param else "5."


def shown(data: bytes) -> list:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    return [*image.size, hashlib.sha256(image.tobytes()).hexdigest()]


def reasons(folder: Path) -> dict[str, str]:
    return {row.key: row.message for row in rows_of(folder)}


@pytest.mark.slow
def test_pairs_are_opened_by_datasets_of_then_and_now(tmp_path: Path, reader: tuple[str, str]) -> None:
    pieces = [("a.png", png()), ("a.txt", ODD.encode()), ("b.txt", b"no picture"), ("c.png", png())]
    pieces += [("d.png", png()), ("d.json", json.dumps({"caption": "of d", "score": 1}).encode())]
    run = copied(tmp_path / "run", *PAIRS, "data.shard_size=3", source=make_tar(tmp_path / "in.tar", pieces))
    export_records(run, tmp_path / "out", "hf")
    found = read_with(reader[0], READ, tmp_path / "out", reader[1])[""]
    assert [(row["key"], row["text"], row["metadata"]) for row in found] == [
        *(("in.tar/a", ODD, "{}"), ("in.tar/b", "no picture", "{}"), ("in.tar/c", None, "{}")),
        ("in.tar/d", "of d", '{"score": 1}'),
    ]
    assert [row["image"] for row in found] == [shown(png()), None, shown(png()), shown(png())]
    assert problems_of(tmp_path / "out") == []


@pytest.mark.slow
def test_any_record_is_opened_by_datasets_of_then_and_now(tmp_path: Path, reader: tuple[str, str]) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_bytes(png())
    content = [{"type": "image", "image": "two.png"}, {"type": "text", "text": "And this?"}]
    lines = [
        {"id": 7, "image": ["one.png", "two.png"], "conversations": [{**TALK[0], "value": "<image><image>"}, TALK[1]]},
        {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A dog."}]},
        {"image": "one.png", "conversations": [{**TALK[0], "markdown": 1}, TALK[1]]},
        {"text": "a document"},
    ]
    run = copied(tmp_path / "run", *RECORDS, "data.shard_size=2", source=write_lines(tmp_path / "in.jsonl", lines))
    export_records(run, tmp_path / "out", "hf", RecordOptions(split="train:1,val:1"))
    splits = read_with(reader[0], READ, tmp_path / "out", reader[1])
    assert sorted(map(len, splits.values())) == [2, 2]
    found = sorted((row for rows in splits.values() for row in rows), key=lambda row: row["key"])
    assert [len(row["images"]) for row in found] == [2, 1, 1, 0]
    assert [turn["value"] for row in found[:3] for turn in row["conversations"]] == [
        *("<image><image>", TALK[1]["value"], "<image>And this?", "A dog.", TALK[0]["value"], TALK[1]["value"])
    ]
    assert [json.loads(row["metadata"]).keys() for row in found] == [{"id"}, set(), {"conversations"}, set()]
    assert (found[3]["text"], found[3]["conversations"]) == ("a document", None)


def test_what_is_no_pair_is_a_reject_that_says_so_and_a_record_takes_it(tmp_path: Path) -> None:
    talk = json.dumps({"conversations": TALK}).encode()
    pieces = [("a.png", png()), ("a.json", talk), ("b.0.png", png()), ("b.1.png", png())]
    pieces += [("c.txt", b"c"), ("c.npy", b"N"), ("d.png", png()), ("d.txt", b"d")]
    source = make_tar(tmp_path / "in.tar", pieces)
    run = copied(tmp_path / "pairs", *PAIRS, source=source)
    assert reasons(run) == {
        "in.tar/a": "it holds a conversation (conversations), which no pair does: copy.columns=records takes it",
        "in.tar/b": "it has 2 pictures, which no pair does: copy.columns=records takes it",
        "in.tar/c": "it holds npy, which no pair does: copy.columns=records takes it",
    }
    run = copied(tmp_path / "records", *RECORDS, source=source)
    assert reasons(run) == {}
    (rows,) = [rows_module.StoredRows(path) for path in (run / "shards").iterdir() if path.is_dir()]
    found = [sample.row for sample in rows.samples()]  # type: ignore[attr-defined]
    assert [[item["data"] for item in row["files"]] for row in found] == [[], [], [b"N"], []]
    assert [[item["bytes"] for item in row["images"]] for row in found] == [[png()], [png()] * 2, [], [png()]]


@pytest.mark.parametrize("overrides", [PAIRS, RECORDS])
def test_a_copy_as_rows_is_verified_and_proved_and_its_damage_found(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    run = copied(tmp_path / "run", *overrides, "data.n_train_samples=24")
    assert [report.problems for report in verify(run)] == [[], []]
    proof = prove(run, 5, seed=1)
    assert (proof.equal, proof.differences) == (5, [])
    path = next((run / "shards").glob("*/records/*.arrow"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    assert any(path.name in problem for report in verify(run) for problem in report.problems)


@pytest.mark.slow
def test_a_stopped_and_continued_copy_as_rows_has_the_same_bytes(tmp_path: Path) -> None:
    overrides = (*PAIRS, "data.n_train_samples=24")
    small_run(tmp_path / "whole", *overrides)
    prepare(small_config(tmp_path / "stopped", *overrides))
    while run_task(tmp_path / "stopped", StopAfter(5)) is not TaskOutcome.FINISHED:  # type: ignore[arg-type]
        pass
    assert sha256_tree(tmp_path / "stopped/shards") == sha256_tree(tmp_path / "whole/shards")


@pytest.mark.slow
def test_a_batch_is_laid_out_while_the_next_is_read_but_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same bytes. Two large ones are not in memory together."""
    steps: list[str] = []
    start, append = Copying.start, ShardWriter.append

    def noted_start(maker: Copying, batch: Batch, **options: Any) -> Callable[[], Copied]:
        steps.append("start")
        return start(maker, batch, **options)

    def noted_append(writer: ShardWriter, batch: Copied) -> None:
        steps.append("write")
        append(writer, batch)

    monkeypatch.setattr(Copying, "start", noted_start)
    monkeypatch.setattr(ShardWriter, "append", noted_append)
    batches = ("data.n_train_samples=12", "data.shard_size=12", "loader.batch_size=4")
    small_run(tmp_path / "small", *PAIRS, *batches)
    assert steps == ["start", "write", "start", "start", "write", "write"], "the first one is made safe at once"
    steps.clear()
    monkeypatch.setattr("hpcdata.stages.copy.making._MOST_AHEAD", 0)
    small_run(tmp_path / "large", *PAIRS, *batches)
    assert steps == ["start", "write"] * 3
    assert sha256_tree(tmp_path / "large/shards") == sha256_tree(tmp_path / "small/shards")


def test_batches_of_rows_are_of_the_plan(tmp_path: Path) -> None:
    def planned(*overrides: str) -> Plan:
        return prepare(small_config(tmp_path / "run", *overrides))

    assert planned(*PAIRS).fingerprint != planned(*PAIRS, "loader.batch_size=5").fingerprint
    assert planned(*PAIRS).fingerprint != planned(*RECORDS).fingerprint
    others = ("loader.batch_size=5", "copy.columns=records")  # nothing to tars
    assert planned(*TARS).fingerprint == planned(*TARS, *others).fingerprint
    assert planned(*PAIRS, "loader.batch_size=auto").config.loader.batch_size == 64


def test_large_rows_are_cut_into_batches_that_readers_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr("hpcdata.formats.arrow.MOST_IN_BATCH", 1000)
    rows = [written(number, b"x" * 400) for number in range(5)]
    assert rows_module.bodies("pairs", rows[:0]) == []
    with pa.ipc.open_stream(b"".join([rows_module.head("pairs"), *rows_module.bodies("pairs", rows)])) as stream:
        batches = list(stream)
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert pa.Table.from_batches(batches).column("key").to_pylist() == list("01234")


def written(number: int, picture: bytes | None) -> rows_module.WrittenRow:
    image = None if picture is None else {"bytes": picture, "path": f"{number}.jpg"}
    text = None if number % 3 else f"text {number}"
    return rows_module._written(number, {"key": str(number), "image": image, "text": text, "metadata": "{}"})


@pytest.mark.parametrize("pictures", [[b"a", b"", b"ccc"], [b"a", None], [None, None], [b"x"]])
def test_the_bytes_of_a_batch_are_those_that_arrow_makes_of_rows(pictures: list[bytes | None]) -> None:
    import pyarrow as pa

    rows = [written(number, picture) for number, picture in enumerate(pictures)]
    schema = arrow.schema_of(rows_module.FEATURES["pairs"])
    expected = pa.RecordBatch.from_pylist([sample.row for sample in rows], schema=schema)
    assert b"".join(rows_module.bodies("pairs", rows)) == expected.serialize().to_pybytes()
