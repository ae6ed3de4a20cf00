"""Inputs that are removed or changed after planning: refused, or rejected by name.

pytest tests/work/test_reading.py
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from hpcdata import embedded, sources
from hpcdata.base.errors import UserError
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs import replacing
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import Blob
from hpcdata.shards.counts import Counts
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.writing import ShardWriter
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.evidence import CHANGES, Evidence
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import sha256_tree, tree

REJECT = "data.on_changed_input=reject"
ALL = "data.n_train_samples=null"
TEXT = "image.tokenizer=none"
NUM_TAR_SAMPLES = 96


def make_inputs(folder: Path) -> dict[str, Path]:
    """One of each kind: a tar of 96 samples, three JSON lines, a document."""
    folder.mkdir()
    shutil.copy(embedded.path("quickstart.tar"), folder / "a.tar")
    (folder / "b.jsonl").write_text('{"text": "one", "image": ""}\n' * 3)
    (folder / "c.txt").write_text("a document")
    return {path.suffix[1:]: path for path in folder.iterdir()}


def work(run: Path, polls: int | None = None) -> TaskOutcome:
    return run_task(run, StopAfter(polls))  # type: ignore[arg-type]


def rejects(run: Path) -> list[RejectRow]:
    return list(rows_of(Path(run)))


def account(run: Path) -> Counts:
    combine(run, CombineOptions())
    reports = verify.verify(run)
    assert not [problem for report in reports for problem in report.problems]
    return reports[-1].counts


def remove(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.slow
@pytest.mark.parametrize("change", [remove, Path.touch, grow])
@pytest.mark.parametrize(("kind", "num_samples"), [("tar", NUM_TAR_SAMPLES), ("jsonl", 3), ("txt", 1)])
def test_the_samples_of_a_changed_input_are_rejected_by_its_name(
    tmp_path: Path, evidence: Evidence, change: Callable[[Path], None], kind: str, num_samples: int
) -> None:
    inputs = make_inputs(tmp_path / "in")
    source, options = (
        f"[{','.join(map(str, sorted(inputs.values())))}]",
        (ALL, TEXT, "data.shard_size=40", "data.max_rejected=1"),
    )
    prepare(small_config(tmp_path / "run", *options, source=source))
    change(inputs[kind])
    assert work(tmp_path / "run") is TaskOutcome.FAILED, "by default its shards are refused"
    prepare(
        small_config(tmp_path / "run", *options, REJECT, source=source)
    )  # the same line again, with the other setting
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    rows, name = rejects(tmp_path / "run"), inputs[kind].name
    what = "was removed after it was planned" if change is remove else "has changed since it was planned"
    assert [(row.key, row.source) for row in rows] == [(f"{name}#{place}", name) for place in range(num_samples)]
    assert {(row.reason, row.message) for row in rows} == {("changed_input", f"{name} {what}")}
    evidence(CHANGES, 1, tmp_path / "run")
    counts = account(tmp_path / "run")
    assert counts.inputs == NUM_TAR_SAMPLES + 4
    assert (counts.written, counts.rejected) == (counts.inputs - num_samples, {"changed_input": num_samples})


def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up_for_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input is gone, so its samples could never be made again."""
    source, run = Path(shutil.copy(embedded.path("quickstart.tar"), tmp_path / "in.tar")), tmp_path / "run"
    prepare(small_config(run, TEXT, "data.shard_size=24", REJECT, source=source))
    assert work(run, 6) is TaskOutcome.STOPPED
    source.unlink()

    def adopt(writer: ShardWriter, old: Path, progress: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "adopt", adopt)
        assert work(run) is TaskOutcome.FAILED
    assert work(run) is TaskOutcome.FINISHED
    counts = account(run)
    assert 0 < counts.written < 24
    assert counts.rejected == {"changed_input": 24 - counts.written}


def test_what_a_checkpoint_holds_stays_and_comes_from_before_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tar is replaced by another one of the same samples in the middle of a shard, with no signal in sight."""
    source = Path(shutil.copy(embedded.path("quickstart.tar"), tmp_path / "in.tar"))
    small_run(tmp_path / "good", "data.shard_size=24", source=source)
    run, reads, real = tmp_path / "run", 0, Blob.read
    prepare(small_config(run, "data.shard_size=24", REJECT, "loader.num_workers=1", source=source))

    def read(blob: Blob, *, max_bytes: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 16:
            grow(source)
        return real(blob, max_bytes=max_bytes)

    monkeypatch.setattr(Blob, "read", read)
    assert work(run) is TaskOutcome.FINISHED
    counts, rows = account(run), rejects(run)
    assert counts.written == 24 - len(rows)
    assert 0 < len(rows) < 24
    assert [row.index for row in rows] == list(range(counts.written, 24))
    name = "shards/00000-of-00001/tokens/ids.memmap"
    assert (tmp_path / "good" / name).read_bytes().startswith((run / name).read_bytes())


def test_what_was_read_from_a_changed_input_never_enters_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, then restored with its old time: the shard must not hold anything of the other content."""
    source = Path(shutil.copy2(embedded.path("quickstart.tar"), tmp_path / "in.tar"))
    shutil.copy2(source, tmp_path / "aside.tar")
    small_run(tmp_path / "good", source=source)
    prepare(small_config(tmp_path / "run", source=source))
    real = Blob.read
    monkeypatch.setattr(Blob, "read", lambda blob, *, max_bytes: source.touch() or real(blob, max_bytes=max_bytes))
    assert work(tmp_path / "run") is TaskOutcome.FAILED
    monkeypatch.undo()
    shutil.copy2(tmp_path / "aside.tar", source)
    assert not [path for path in (tmp_path / "run/shards").rglob("ids.memmap") if _vouched(path)]
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    assert sha256_tree(tmp_path / "run/shards") == sha256_tree(tmp_path / "good/shards")


def _vouched(path: Path) -> int:
    return int(json.loads((path.parent.parent / "progress.json").read_text())["samples_read"])


def test_an_input_that_comes_back_is_retried(tmp_path: Path, evidence: Evidence) -> None:
    source = Path(shutil.copy2(embedded.path("quickstart.tar"), tmp_path / "in.tar"))
    small_run(tmp_path / "good", source=source)
    prepare(small_config(tmp_path / "run", REJECT, source=source))
    work(tmp_path / "run", 8)
    source.rename(tmp_path / "aside")
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    rejected = len(rejects(tmp_path / "run"))
    (tmp_path / "aside").rename(source)
    assert retry(tmp_path / "run").recovered == {"changed_input": rejected}
    evidence(CHANGES, 1, tmp_path / "run")
    assert account(tmp_path / "run") == account(tmp_path / "good")
    assert prove(tmp_path / "run", 99, 0).equal == 24


def test_a_file_system_that_is_not_there_rejects_nothing(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    source = Path(shutil.copy2(embedded.path("quickstart.tar"), tmp_path / "mount/in.tar"))
    prepare(small_config(tmp_path / "run", REJECT, source=source))
    (tmp_path / "mount").rename(tmp_path / "aside")
    assert work(tmp_path / "run") is TaskOutcome.FAILED
    (tmp_path / "aside").rename(tmp_path / "mount")
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    assert account(tmp_path / "run").written == 24


@pytest.mark.parametrize("removed", [False, True])
def test_resuming_without_an_input_is_refused_unless_it_is_to_be_rejected(
    tmp_path: Path, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing, "is_nothing_written", lambda paths: False)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"{number}")
    pattern, options = f"{tmp_path}/{{0..2}}.txt", (ALL, TEXT)
    prepare(small_config(tmp_path / "run", *options, source=pattern))
    path = tmp_path / "1.txt"
    path.unlink() if removed else path.write_text("other")
    with pytest.raises(UserError, match=r"1\.txt"):
        prepare(small_config(tmp_path / "run", *options, source=pattern))
    prepare(small_config(tmp_path / "run", *options, REJECT, source=pattern))
    with pytest.raises(UserError, match="do not exist"):
        prepare(small_config(tmp_path / "run", *options, REJECT, source=f"{tmp_path}/{{0..3}}.txt"))
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    assert [row.key for row in rejects(tmp_path / "run")] == ["1.txt#0"]


@pytest.mark.parametrize("kind", ["jsonl", "json", "folder"])
def test_a_picture_that_goes_missing_is_rejected_by_its_own_name(tmp_path: Path, evidence: Evidence, kind: str) -> None:
    """Also where the folder or the JSON array itself has changed: what planning wrote down is read."""
    pictures = tmp_path / "in"
    (pictures / "deep").mkdir(parents=True)
    names = [f"deep/{number}.png" for number in range(4)]
    for name in names:
        Image.new("RGB", (32, 32), (9, 9, 99)).save(pictures / name)
        (pictures / name).with_suffix(".txt").write_text("caption")
    rows = [{"image": name, "text": "caption"} for name in names]
    lines, array = pictures / "in.jsonl", pictures / "in.json"
    source = {"jsonl": lines, "json": array, "folder": pictures}[kind]
    if kind != "folder":
        text = json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows)
        source.write_text(text)
    prepare(small_config(tmp_path / "run", ALL, REJECT, source=source))
    (pictures / names[2]).unlink()
    if kind != "jsonl":
        source.touch()
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    (row,) = rejects(tmp_path / "run")
    assert (row.index, row.reason) == (2, "missing_image")
    assert row.message == "deep/2.png: no such file"
    evidence(CHANGES, 1, tmp_path / "run")
    assert account(tmp_path / "run").written == 3


def test_shards_of_other_inputs_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        shutil.copy2(embedded.path("quickstart.tar"), tmp_path / f"{name}.tar")
    source = f"{tmp_path}/[ab].tar"
    small_run(tmp_path / "good", ALL, TEXT, "data.shard_size=96", source=source)
    prepare(small_config(tmp_path / "run", ALL, TEXT, "data.shard_size=96", REJECT, source=source))
    (tmp_path / "a.tar").unlink()
    assert work(tmp_path / "run") is TaskOutcome.FINISHED
    name = "shards/00001-of-00002"
    assert tree(tmp_path / "run" / name) == tree(tmp_path / "good" / name)


@pytest.mark.slow
def test_documents_in_bulk_are_the_files_that_single_records_make(tmp_path: Path, monkeypatch) -> None:
    """Hostile lines, texts without ids, cut texts, an interrupted shard, either engine."""
    good = [
        json.dumps({"text": f"document {number} " + "word </s> e\u0301 日本 " * (number % 9)}) for number in range(40)
    ]
    odd = ["{", "[1]", '{"text": ""}', '{"text": " "}', '{"text": "a\\u0000"}', '{"text": 3}', '{"content": "c"}']
    odd += ['{"text": "a", "image": "b.jpg"}', '{"text": "\\ud800"}', "[" * 3000, '{"text": "' + "x" * 5000 + '"}']
    lines = [line for pair in zip(good, [*odd * 4][: len(good)], strict=True) for line in pair]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    options = ["data.source=text", TEXT, ALL, "data.max_record_bytes=4096", "data.shard_size=19", "data.block_size=9"]
    trees = {}
    for name, is_bulk, engine in (("a", True, "reference"), ("b", False, "reference"), ("c", True, "fast")):
        with monkeypatch.context() as patched:
            if not is_bulk:
                patched.setattr(sources, "gives_documents", lambda _: False)
            config = small_config(tmp_path / name, *options, f"text.engine={engine}", source=tmp_path / "x.jsonl")
            prepare(config)
            while work(tmp_path / name, polls=5) is not TaskOutcome.FINISHED:
                pass
        trees[name] = sha256_tree(tmp_path / name / "shards")
    assert trees["a"] == trees["b"] == trees["c"]
    reasons = {row.reason for row in rejects(tmp_path / "a")}
    assert reasons == {"bad_json", "bad_record", "empty_text", "unreadable_text", "oversized_record"}
    assert not any(report.problems for report in verify.verify(tmp_path / "a"))
