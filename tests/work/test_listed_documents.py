"""A folder of many documents is one input, a listing.   pytest tests/work/test_listed_documents.py"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.sources import list_inputs
from hpcdata.sources.inputs import looking
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome
from tests.smallruns import small_config, small_run
from tests.trees import tree
from tests.work.test_joined_shards import TEXT, ids_of, work, write_documents

OPTIONS = (*TEXT, "data.source=text", "data.shard_size=7")


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MANY", 20)


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MANY", 10**9)


def test_a_folder_of_many_is_one_input_with_the_ids_of_single_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path / "in", 30)
    (tmp_path / "in/sub").mkdir()
    (tmp_path / "in/sub/a.txt.gz").write_bytes(gzip.compress(b"zipped"))
    (tmp_path / "in/sub/b.txt").write_bytes(b"")
    (tmp_path / "in/sub/c.TXT").write_bytes(gzip.compress(b"zipped, whatever its name says"))
    (tmp_path / "in/sub/d.csv").write_bytes(b"x")
    plan = small_run(tmp_path / "many", *OPTIONS, source=tmp_path / "in")
    (planned,) = plan.inputs
    assert (planned.file.format, planned.file.label, planned.scan.num_samples) == ("documents", "in", 33)
    assert plan.found is not None
    assert (plan.found.files, plan.found.inputs, plan.found.parts) == (34, 0, 33)
    assert [item.ending for item in plan.not_read] == [".csv"]
    (row,) = rows_of(tmp_path / "many")
    assert (row.key, row.reason) == ("in/sub/b.txt", "empty_text")
    few(monkeypatch)
    single = small_run(tmp_path / "single", *OPTIONS, source=tmp_path / "in")
    assert len(single.inputs) == 33
    assert ids_of(tmp_path / "many") == ids_of(tmp_path / "single")
    assert len((tmp_path / "many/plan.json").read_bytes()) < len((tmp_path / "single/plan.json").read_bytes()) / 3


def test_rows_beside_many_documents_are_inputs_as_well(tmp_path: Path) -> None:
    write_documents(tmp_path / "in", 20)
    (tmp_path / "in/a.jsonl").write_text('{"text": "row"}\n')
    found = list_inputs(str(tmp_path / "in"), "text")
    assert sorted((file.label, file.format) for file in found) == [("in", "documentfolder"), ("in/a.jsonl", "text")]


def test_bytes_are_the_same_wherever_it_is_stopped_and_it_is_proved(tmp_path: Path) -> None:
    write_documents(tmp_path / "in", 30)
    small_run(tmp_path / "whole", *OPTIONS, source=tmp_path / "in")
    folder = tmp_path / "stopped"
    prepare(small_config(folder, *OPTIONS, source=tmp_path / "in"))
    while work(folder, 2) is not TaskOutcome.FINISHED:
        continue
    assert tree(folder / "shards") == tree(tmp_path / "whole/shards")
    assert prove(folder, 30, seed=1).equal == 30
    combine(folder, CombineOptions())
    assert not [problem for report in verify.verify(folder) for problem in report.problems]


def test_times_of_change_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    write_documents(tmp_path / "a", 20)
    first = prepare(small_config(tmp_path / "run-a", *OPTIONS, source=tmp_path / "a"))
    for path in (tmp_path / "a").iterdir():
        os.utime(path, ns=(5, 5))
    second = prepare(small_config(tmp_path / "run-b", *OPTIONS, source=tmp_path / "a"))
    assert first.fingerprint == second.fingerprint


def test_a_resumed_run_lists_as_its_plan_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_documents(tmp_path / "in", 20)
    few(monkeypatch)
    single = small_config(tmp_path / "single", *OPTIONS, source=tmp_path / "in")
    assert len(prepare(single).inputs) == 20
    monkeypatch.setattr(looking, "MANY", 20)
    assert len(prepare(single).inputs) == 20
    listed = small_config(tmp_path / "listed", *OPTIONS, source=tmp_path / "in")
    assert len(prepare(listed).inputs) == 1
    few(monkeypatch)
    assert len(prepare(listed).inputs) == 1


def test_a_document_that_changed_is_refused_or_rejected_alone_and_taken_in_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = write_documents(tmp_path / "in", 30)
    files = sorted((tmp_path / "in").iterdir())
    for policy in ("refuse", "reject"):
        config = small_config(tmp_path / policy, *OPTIONS, f"data.on_changed_input={policy}", source=tmp_path / "in")
        prepare(config)
    before = files[3].stat()
    files[3].write_text("other")
    moved = files[9].rename(tmp_path / "moved")
    assert work(tmp_path / "refuse") is TaskOutcome.FAILED
    assert "0003.txt has changed since it was planned: restore it" in caplog.text
    assert "0009.txt was removed after it was planned: restore it" in caplog.text
    assert len(list((tmp_path / "refuse/shards").glob("0*"))) == 3, "the shards without these two"
    assert work(tmp_path / "reject") is TaskOutcome.FINISHED
    rows = [(row.index, row.key, row.reason, row.message) for row in rows_of(tmp_path / "reject")]
    assert rows == [
        (3, "in/0003.txt", "changed_input", "0003.txt has changed since it was planned"),
        (9, "in/0009.txt", "changed_input", "0009.txt was removed after it was planned"),
    ]
    files[3].write_text(texts[3])
    os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns))
    moved.rename(files[9])
    done = retry(tmp_path / "reject")
    assert (done.tried, done.recovered) == (2, {"changed_input": 2})


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    write_documents(tmp_path / "in", 20)
    with open(os.fsencode(tmp_path / "in") + b"/a\xff.txt", "wb") as file:
        file.write(b"odd")
    small_run(tmp_path / "run", *OPTIONS, source=tmp_path / "in")
    assert not list(rows_of(tmp_path / "run"))
    combine(tmp_path / "run", CombineOptions())
    assert not [problem for report in verify.verify(tmp_path / "run") for problem in report.problems]


def test_a_listing_that_was_damaged_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_documents(tmp_path / "in", 20)
    plan = prepare(small_config(tmp_path / "run", *OPTIONS, source=tmp_path / "in"))
    listing = tmp_path / "run" / plan.inputs[0].file.path
    lines = listing.read_text().splitlines(keepends=True)
    lines[2] = json.dumps({"key": 1}).ljust(len(lines[2]) - 1) + "\n"
    listing.write_text("".join(lines))
    assert work(tmp_path / "run") is TaskOutcome.FAILED
    assert "the listing of a folder in inputs/ is damaged" in caplog.text
