"""Exports appear at once and whole, whatever ends the process.   pytest tests/formats/test_arranging.py"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcdata import verify as verify_command
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Unfinished, UserError
from hpcdata.formats import target as targets
from hpcdata.formats.arranging import Building, arrange
from hpcdata.formats.target import Piece, Source, Target, problems_of, read_target
from hpcdata.runs.claims import Claims, Owner
from hpcdata.shards.counts import Counts
from tests.crashes import Crash, crash_at, fault_at
from tests.evidence import CRASHES, Evidence
from tests.trees import tree

SOURCE = Source(fingerprint="f" * 64, content_digest="c" * 64, stage="tokenize", num_samples=3)
TARGET = Target(format="made", options={"size": 2}, source=SOURCE, counts=Counts(inputs=3, written=3))
ODD = "ai2d(cauldron,llava_format)/GeoQA+[a]*.json"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    path.write_bytes(b"linked")
    return path


def filled(shard: Path, *, more: int = 0) -> Any:
    def fill(building: Building) -> Mapping[str, Any]:
        building.link(shard, "parts/a.tar", sha256_file(shard))
        halves = [Piece(size=3, sha256=sha256_file(shard, size=3)), Piece(size=3, sha256=_sha256(b"ked"))]
        building.link(shard, "pieces.bin", "", pieces=halves)
        building.write(ODD, b"{}")
        with building.open("grown.jsonl") as file:
            file.append(b"one\n")
            file.append(b"two\n")
        for number in range(more):
            building.write(f"many/{number:05d}", b"%d" % number)
        return {"shift": 7}

    return fill


def forget_claim(out: Path) -> None:
    """As if the process that died here were another one."""
    shutil.rmtree(out.with_name(f".{out.name}.claims"), ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_export_holds_its_files_and_says_what_it_came_from(tmp_path: Path, shard: Path) -> None:
    out = tmp_path / "new/out"
    made = arrange(out, TARGET, filled(shard))
    assert tree(out).keys() == {"parts/a.tar", "pieces.bin", ODD, "grown.jsonl", "hpcdata.json"}
    assert (out / "parts/a.tar").samefile(shard)
    found = read_target(out)
    assert found == made
    assert (found.facts, found.source, found.counts) == ({"shift": 7}, SOURCE, TARGET.counts)
    assert problems_of(out) == []
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]


def test_the_same_call_finds_it_and_makes_nothing(tmp_path: Path, shard: Path) -> None:
    made = arrange(tmp_path / "out", TARGET, filled(shard))
    assert arrange(tmp_path / "out", TARGET, lambda building: pytest.fail("it was made again")) == made


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_step_leaves_nothing_or_all_and_the_same_call_makes_the_same_bytes(
    tmp_path: Path, shard: Path, evidence: Evidence, after: bool
) -> None:
    arrange(tmp_path / "whole", TARGET, filled(shard))
    whole, number, finished = tree(tmp_path / "whole"), 0, False
    while not finished:
        number += 1
        out = tmp_path / f"{number}" / "out"
        with crash_at(number, after=after) as counter, contextlib.suppress(Crash):
            arrange(out, TARGET, filled(shard))
        finished = counter.calls < number
        assert not out.exists() or tree(out) == whole, number
        forget_claim(out)
        arrange(out, TARGET, filled(shard))
        assert tree(out) == whole, number
        assert sorted(path.name for path in out.parent.iterdir()) == ["out"], number
    assert number > 20
    evidence(CRASHES, number)


@pytest.mark.slow
def test_replacing_one_that_has_grown_always_leaves_one_of_the_two(
    tmp_path: Path, shard: Path, evidence: Evidence
) -> None:
    grown = dataclasses.replace(TARGET, source=dataclasses.replace(SOURCE, content_digest="d" * 64))
    number, finished = 0, False
    while not finished:
        number += 1
        out = tmp_path / f"{number}" / "out"
        arrange(out, TARGET, filled(shard))
        old = tree(out)
        with crash_at(number, after=False) as counter, contextlib.suppress(Crash):
            arrange(out, grown, filled(shard, more=1))
        finished = counter.calls < number
        forget_claim(out)
        arrange(out, grown, filled(shard, more=1))
        assert read_target(out).source == grown.source
        assert problems_of(out) == []
        assert tree(out) != old
        assert sorted(path.name for path in out.parent.iterdir()) == ["out"], number
    evidence(CRASHES, number)


@pytest.mark.slow
def test_a_disk_that_becomes_full_leaves_no_half(tmp_path: Path, shard: Path) -> None:
    number, finished, faults = 0, False, 0
    while not finished:
        number += 1
        out = tmp_path / f"{number}" / "out"
        with fault_at(number, errno.ENOSPC, lasting=False) as counter:
            try:
                arrange(out, TARGET, filled(shard))
            except OSError as error:
                faults += error.errno == errno.ENOSPC
        finished = counter.calls < number
        assert not out.exists() or problems_of(out) == []
        forget_claim(out)
        arrange(out, TARGET, filled(shard))
        assert problems_of(out) == []
    assert faults > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"size": 3}}, "size was 2, now 3"),
        ({"format": "other"}, "of format made"),
        ({"source": dataclasses.replace(SOURCE, fingerprint="e" * 64)}, "of another dataset"),
    ],
)
def test_another_export_is_never_overwritten(tmp_path: Path, shard: Path, change: dict, message: str) -> None:
    arrange(tmp_path / "out", TARGET, filled(shard))
    with pytest.raises(UserError, match=message):
        arrange(tmp_path / "out", dataclasses.replace(TARGET, **change), filled(shard))


def test_neither_is_anything_else(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        arrange(tmp_path / "out", TARGET, filled(shard))
    assert tree(tmp_path / "out") == {"mine.txt": b"mine"}


def test_two_processes_do_not_make_it_at_once(tmp_path: Path, shard: Path) -> None:
    other = Claims(tmp_path / ".out.claims", Owner.of_this_process("other"), timeout_s=60)
    with other as claims:
        assert claims.try_claim("arrange")
        with pytest.raises(Unfinished, match="another process is making"):
            arrange(tmp_path / "out", TARGET, filled(shard))
    arrange(tmp_path / "out", TARGET, filled(shard))
    assert not (tmp_path / ".out.claims").exists()


def test_of_many_files_the_list_is_a_file_of_its_own(
    tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcdata.formats.arranging.MOST_NAMED", 10)
    out = tmp_path / "out"
    made = arrange(out, TARGET, filled(shard, more=20))
    assert [entry.name for entry in made.files] == [targets.LISTING]
    assert len(list(made.entries())) == 25
    assert problems_of(out) == []
    (out / "many/00007").write_bytes(b"8")
    assert problems_of(out) == ["many/00007: its bytes are not those written"]


def test_what_was_missing_in_the_source_is_told_and_makes_no_other_export(tmp_path: Path, shard: Path) -> None:
    """An export of 37 rows said `37 inputs = 37 written + 0 rejected` of 41 records, 4 of them rejects."""
    whole = Counts(inputs=4, written=3, rejected=Counter({"bad_json": 1}))
    target = dataclasses.replace(TARGET, source=dataclasses.replace(SOURCE, counts=whole))
    made = arrange(tmp_path / "out", target, filled(shard))
    found = read_target(tmp_path / "out")
    assert found.source.counts == whole
    assert found.describe().endswith("of a dataset with 4 inputs = 3 written + 1 rejected + 0 duplicate")
    assert arrange(tmp_path / "out", TARGET, filled(shard)).files == made.files


def test_verify_finds_what_was_changed_removed_or_added(
    tmp_path: Path, shard: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arrange(out, TARGET, filled(shard))
    assert verify_command.main([str(out)]) == 0
    assert "made, 3 inputs = 3 written" in capsys.readouterr().out
    (out / "pieces.bin").unlink()
    (out / "pieces.bin").write_bytes(b"linKed")
    (out / "grown.jsonl").write_bytes(b"one\n")
    (out / ODD).unlink()
    (out / "stale.json").write_bytes(b"")
    assert verify_command.main([str(out), "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["problems"] == [
        "pieces.bin: the bytes of piece 1 are not those written",
        f"{ODD} is gone",
        "grown.jsonl: 4 bytes, expected 8",
        "1 files were not there when it was made, such as stale.json: remove them, or read without",
    ]


def test_an_edited_record_is_told(tmp_path: Path, shard: Path) -> None:
    out = tmp_path / "out"
    arrange(out, TARGET, filled(shard))
    path = out / targets.FILE_NAME
    path.write_text(path.read_text().replace('"shift": 7', '"shift": 8'))
    (problem,) = problems_of(out)
    assert "edited, or damaged" in problem
    path.write_text(path.read_text().replace("grown.jsonl", "../../etc/passwd"))
    with pytest.raises(UserError, match="outside of its folder"):
        problems_of(out)
