"""Shards that hold samples of several inputs.   pytest tests/work/test_joined_shards.py"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcdata import TokenDataset, embedded, sources, stages
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.work.poison import CrashNotes, Trial
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import tree

ALL = "data.n_train_samples=null"
TEXT = ("image.tokenizer=none", ALL)


def work(run: Path, polls: int | None = None) -> TaskOutcome:
    return run_task(run, StopAfter(polls))  # type: ignore[arg-type]


def write_documents(folder: Path, number: int) -> list[str]:
    folder.mkdir()
    texts = [f"document {index} " * (index % 5 + 1) for index in range(number)]
    for index, text in enumerate(texts):
        (folder / f"{index:04d}.txt").write_text(text)
    return texts


def mixed_inputs(folder: Path) -> str:
    """A tar of 96 pictures, 5 lines of which one has an empty text, 3 documents: in this order."""
    folder.mkdir()
    shutil.copy(embedded.path("quickstart.tar"), folder / "a.tar")
    lines = [{"text": f"line {index}" if index != 2 else ""} for index in range(5)]
    (folder / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for index in range(3):
        (folder / f"c{index}.txt").write_text(f"document {index}")
    return f"[{','.join(str(path) for path in sorted(folder.iterdir()))}]"


def ids_of(run: Path) -> list[list[int]]:
    combine(run, CombineOptions())
    dataset = TokenDataset(run)
    return [[int(token) for span in dataset[row].spans for token in span.ids] for row in range(len(dataset))]


def test_small_files_make_no_more_shards_than_one_file_of_their_texts(tmp_path: Path) -> None:
    texts = write_documents(tmp_path / "many", 50)
    (tmp_path / "one.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = (*TEXT, "data.source=text", "data.shard_size=20")
    many = small_run(tmp_path / "run-many", *options, source=tmp_path / "many")
    one = small_run(tmp_path / "run-one", *options, source=tmp_path / "one.jsonl")
    assert many.num_shards == one.num_shards == 3
    assert [spec.count for spec in many.shards()] == [20, 20, 10]
    assert ids_of(tmp_path / "run-many") == ids_of(tmp_path / "run-one")


def test_every_sample_is_of_one_segment(tmp_path: Path) -> None:
    plan = prepare(small_config(tmp_path / "run", *TEXT, "data.shard_size=33", source=mixed_inputs(tmp_path / "in")))
    covered = [
        segment.source_index + segment.first + offset
        for spec in plan.shards()
        for segment in spec.segments
        for offset in range(segment.count)
    ]
    assert covered == list(range(104))
    assert [[segment.source.file.label for segment in spec.segments] for spec in plan.shards()] == [
        *[["a.tar"]] * 2,
        ["a.tar", "b.jsonl"],
        ["b.jsonl", "c0.txt", "c1.txt", "c2.txt"],
    ]
    assert all(plan.shard_of(index).name == plan.shard(index // 33).name for index in range(104))


def test_a_plan_without_the_rule_keeps_its_cut(tmp_path: Path) -> None:
    plan = prepare(small_config(tmp_path / "run", *TEXT, "data.shard_size=33", source=mixed_inputs(tmp_path / "in")))
    old = dataclasses.replace(plan, joins_inputs=False)
    assert b"joins_inputs" not in old.to_json()
    (tmp_path / "run/plan.json").write_bytes(old.to_json())
    assert [spec.count for spec in load_plan(tmp_path / "run").shards()] == [33, 33, 30, 5, 1, 1, 1]
    assert work(tmp_path / "run") is TaskOutcome.FINISHED


@pytest.mark.slow
def test_bytes_are_the_same_wherever_it_is_stopped(tmp_path: Path) -> None:
    options, source = (*TEXT, "data.shard_size=33"), mixed_inputs(tmp_path / "in")
    small_run(tmp_path / "whole", *options, source=source)
    for polls in (3, 22, 24, 27):
        folder = tmp_path / str(polls)
        prepare(small_config(folder, *options, source=source))
        while work(folder, polls) is not TaskOutcome.FINISHED:
            continue
        assert tree(folder / "shards") == tree(tmp_path / "whole/shards")


def test_rejects_name_their_own_input_and_are_retried_and_proved(tmp_path: Path) -> None:
    source = mixed_inputs(tmp_path / "in")
    small_run(tmp_path / "run", *TEXT, "data.shard_size=104", source=source)
    (row,) = rows_of(tmp_path / "run")
    assert (row.index, row.key, row.source, row.reason) == (98, "b.jsonl#2", "b.jsonl", "empty_text")
    assert retry(tmp_path / "run").tried == 1
    proof = prove(tmp_path / "run", 103, seed=1)
    assert (proof.equal, proof.differences) == (103, [])
    combine(tmp_path / "run", CombineOptions())
    assert not [problem for report in verify.verify(tmp_path / "run") for problem in report.problems]


def test_only_the_changed_input_of_a_shard_is_rejected(tmp_path: Path) -> None:
    options, source = (*TEXT, "data.shard_size=104", "data.on_changed_input=reject"), mixed_inputs(tmp_path / "in")
    prepare(small_config(tmp_path / "run", *options, source=source))
    assert work(tmp_path / "run", 5) is TaskOutcome.STOPPED
    (tmp_path / "in/c0.txt").unlink()
    (tmp_path / "in/c2.txt").write_text("other")
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    rows = list(rows_of(tmp_path / "run"))
    assert [(row.index, row.source, row.reason) for row in rows] == [
        (98, "b.jsonl", "empty_text"),
        (101, "c0.txt", "changed_input"),
        (103, "c2.txt", "changed_input"),
    ]
    assert "removed" in rows[1].message
    assert "c2.txt has changed" in rows[2].message


def test_a_file_that_is_still_missing_keeps_no_other_reject_of_its_shard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options, source = (*TEXT, "data.shard_size=104", "data.on_changed_input=reject"), mixed_inputs(tmp_path / "in")
    prepare(small_config(tmp_path / "run", *options, source=source))
    files = [tmp_path / "in" / name for name in ("c0.txt", "c2.txt")]
    held = [path.rename(tmp_path / path.name) for path in files]
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    held[1].rename(files[1])
    done = retry(tmp_path / "run", reason="changed_input")
    assert (done.tried, done.recovered, done.problems) == (2, {"changed_input": 1}, [])
    assert done.still_rejected == {"changed_input": 1}
    assert "c0.txt" in caplog.text
    held[0].rename(files[0])
    assert retry(tmp_path / "run", reason="changed_input").recovered == {"changed_input": 1}
    assert sorted(ids_of(tmp_path / "run")) == sorted(ids_of(small_run_of(tmp_path, source)))


def small_run_of(folder: Path, source: str) -> Path:
    small_run(folder / "whole", *TEXT, "data.shard_size=104", source=source)
    return folder / "whole"


def text_inputs(folder: Path) -> str:
    """Lines, of which some are rejects, two documents, an array, lines: 5, 1, 1, 11 and 40 samples."""
    folder.mkdir()
    for name, number in (("a", 5), ("d", 40)):
        rows = [{"text": "" if index in (1, 17) else f"line {index} of {name}"} for index in range(number)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("b1", "b2"):
        (folder / f"{name}.txt").write_text(f"document {name}")
    (folder / "c.json").write_text(json.dumps([{"text": f"row {index}"} for index in range(11)]))
    return f"[{','.join(str(path) for path in sorted(folder.iterdir()))}]"


@pytest.mark.parametrize(("size", "expected"), [(1, 56), (3, 52), (4, 50), (7, 44), (58, 32)])
def test_batches_of_one_input_are_read_in_bulk_and_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, expected: int
) -> None:
    options = (*TEXT, "data.source=text", "data.shard_size=26", f"loader.batch_size={size}")
    source, in_bulk = text_inputs(tmp_path / "in"), []
    real = sources.read_documents

    def read_documents(*arguments, **values):
        for batch in real(*arguments, **values):
            in_bulk.append(len(batch.positions) + len(batch.rejects))
            yield batch

    monkeypatch.setattr(sources, "read_documents", read_documents)
    small_run(tmp_path / "bulk", *options, source=source)
    assert sum(in_bulk) == expected
    monkeypatch.setattr(stages.tokenize.Tokenize, "takes_documents", lambda *_: False)
    small_run(tmp_path / "records", *options, source=source)
    assert tree(tmp_path / "bulk/shards") == tree(tmp_path / "records/shards")
    assert {row.key for row in rows_of(tmp_path / "bulk")} == {"a.jsonl#1", "d.jsonl#1", "d.jsonl#17"}


@pytest.mark.parametrize(("position", "key"), [(95, "a.tar#95"), (97, "b.jsonl#1"), (103, "c2.txt#0")])
def test_what_kills_its_reader_is_rejected_by_its_own_input(tmp_path: Path, position: int, key: str) -> None:
    plan = prepare(small_config(tmp_path / "run", *TEXT, "data.shard_size=104", source=mixed_inputs(tmp_path / "in")))
    (spec,) = plan.shards()
    notes = CrashNotes.read(tmp_path / "run", spec.name)
    trial = Trial(
        tmp_path / "run", spec, notes, task="t", max_crashes=1, should_stop=lambda: False, on_death=lambda *_: None
    )
    record, _ = trial._stand_in(position)
    assert (record.key, record.position) == (key, position)
    assert key.startswith(record.source)


def test_a_child_gives_the_records_that_its_parent_reads(tmp_path: Path) -> None:
    options, source = (*TEXT, "data.shard_size=104"), mixed_inputs(tmp_path / "in")
    small_run(tmp_path / "plain", *options, source=source)
    plan = prepare(small_config(tmp_path / "run", *options, source=source))
    CrashNotes.read(tmp_path / "run", plan.shard(0).name).suspect(96)
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    assert tree(tmp_path / "run/shards") == tree(tmp_path / "plain/shards")
    assert np.array_equal(ids_of(tmp_path / "run")[-1], ids_of(tmp_path / "plain")[-1])
