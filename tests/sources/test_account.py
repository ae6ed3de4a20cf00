"""python -m pytest tests/sources/test_account.py: every file of an input folder is read, or counted as not read."""

import dataclasses
import os
import subprocess

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.report.page import render
from hpcdata.report.status import Observer, read_status
from hpcdata.report.summary import describe
from hpcdata.runs import planning, replacing
from hpcdata.runs.plan import load_plan
from hpcdata.sources import find_account, folder, list_inputs
from hpcdata.sources.account import is_worth_a_warning
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter
from tests.sources.source_files import pairs, write, write_tar


def account(path, without=""):
    return find_account(str(path), list_inputs(str(path), "auto", without=without), without)


def not_read(path, without=""):
    return {item.ending: (item.count, item.example) for item in account(path, without)[1]}


def files_by_find(path):
    return subprocess.run(["find", "-L", path, "-type", "f"], capture_output=True, text=True).stdout.count("\n")


def test_archives_of_other_kinds_beside_a_tar(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    for name in ("b.tar.zst", "c.tar.bz2", "d.tar.BZ2", "sub/WORDS", "shardindex.jsn"):
        write(tmp_path / name, b"x")
    expected = {".bz2": (2, "c.tar.bz2"), ".zst": (1, "b.tar.zst")}
    assert not_read(tmp_path) == {**expected, ".jsn": (1, "shardindex.jsn"), "(no ending)": (1, "sub/WORDS")}


KINDS = ["png", "txt", "heic", "jxl", "mp4", "zip", "7z", "csv", "parquet.crc", "arrow", "npy", "pt", "md", "html"]
KINDS += ["log", "yaml", "lock", "h5", "xlsx", "bin", "README", "_SUCCESS", "_stats.json", "dataset_info.json"]


def test_twenty_kinds_of_files_add_up_to_what_find_counts(tmp_path):
    """Hidden files and folders, folders behind links, loops: found = inputs + parts of samples + not read."""
    for number, kind in enumerate(KINDS):
        write(tmp_path / "set" / f"part{number % 3}" / (f"n{number % 2}.{kind}" if number < 20 else kind), b"x")
    for name in ("n0.json", "n0.caption", ".n0.png", ".cache/a", ".cache/.deep/b.png", "README.md", "0_stats.json"):
        write(tmp_path / "set/part0" / name, b"x")  # n0.txt comes before n0.json
    write(tmp_path / "elsewhere/e.png", b"x")
    write(tmp_path / "elsewhere/e.exe", b"x")
    for link, target in (("link", "elsewhere"), ("twice", "elsewhere"), (".dot", "elsewhere"), ("elsewhere/up", "set")):
        (tmp_path / ("set" if "/" not in link else "") / link).symlink_to(tmp_path / target)
    (tmp_path / "set/gone").symlink_to("nowhere")
    found, left = account(tmp_path / "set")
    assert found.files == files_by_find(tmp_path / "set") == len(KINDS) + 7 + 3 * 2
    parts = {"part0/n0.png", "part1/n1.txt", "part2/n0.heic", "part0/n1.jxl", "part0/n0.caption", "link/e.png"}
    assert (found.inputs, found.parts) == (0, len(parts))
    counts = {item.ending: item.count for item in left}
    assert counts["(hidden)"] == 3 + 2
    assert counts["(read already)"] == 2
    assert counts["(link to a folder above)"] == counts["(no file, or a link to nothing)"] == 1
    assert counts["(notes: README, statistics)"] == 6
    assert counts[".exe"] == counts[".json"] == 1
    assert found.files == found.parts + sum(item.num_files for item in left)


def test_a_folder_of_rows_adds_up_too_and_its_pictures_are_no_loss(tmp_path):
    rows = b'{"image": "pictures/a.png", "text": "a"}\n'
    for name, data in (("a.jsonl", rows), ("pictures/a.png", b"x"), ("b.parquet", b"PAR1"), ("c.arrow", b"x")):
        write(tmp_path / "set" / name, data)
    found, left = account(tmp_path / "set")
    assert (found.files, found.inputs, found.parts) == (4, 2, 0)
    assert {item.ending: item.count for item in left} == {".arrow": 1, "(pictures that records may name)": 1}


def test_only_what_may_be_data_is_a_warning(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    for name in ("README.md", ".hidden", "index.json", "00000_stats.json"):
        write(tmp_path / name, b"x")
    assert not is_worth_a_warning(account(tmp_path)[1])
    write(tmp_path / "b.tar.zst", b"x")
    assert is_worth_a_warning(account(tmp_path)[1])


def test_a_folder_in_a_named_folder_is_counted_once(tmp_path):
    write(tmp_path / "set/a.png", b"x")
    write(tmp_path / "set/sub/b.png", b"x")
    names = [str(tmp_path / "set"), str(tmp_path / "set/sub")]
    found, left = find_account(names, list_inputs(names, "auto"), "")
    assert (found.files, found.parts, left) == (2, 2, ())


@pytest.mark.slow
def test_a_hidden_folder_may_be_as_deep_as_any(tmp_path):
    folder = tmp_path / "set/.deep"
    folder.mkdir(parents=True)
    write(tmp_path / "set/a.png", b"x")
    top = os.open(folder, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=top)
        below = os.open("d", os.O_RDONLY, dir_fd=top)
        os.close(top)
        top = below
    os.close(top)
    write(folder / "d/d/b.png", b"x")
    try:
        assert not_read(tmp_path / "set") == {"(hidden)": (1, ".deep/d/d/b.png")}
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)  # too deep for Python's


def test_what_is_no_file_is_named(tmp_path):
    write(tmp_path / "set/a.png", b"x")
    write(tmp_path / "set/.hidden", b"x")
    (tmp_path / "set/gone").symlink_to("nowhere")
    (tmp_path / "set/self").symlink_to("self")
    (tmp_path / "set/again").symlink_to(".")
    os.mkfifo(tmp_path / "set/pipe")
    assert {kind: count for kind, (count, _) in not_read(tmp_path / "set").items()} == {
        "(no file, or a link to nothing)": 3,
        "(hidden)": 1,
        "(link to a folder above)": 1,
    }


def test_the_same_tar_under_two_names_and_the_folder_of_the_run(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    (tmp_path / "b.tar").symlink_to("a.tar")
    write(tmp_path / "out/plan.json", b"{}")
    assert not_read(tmp_path, without=str(tmp_path / "out")) == {"(read already)": (1, "b.tar")}


def test_what_other_runs_have_made_among_the_inputs_is_no_input(tmp_path):
    """A second run of a folder would read the records of the first one again, and its notes as records."""
    write(tmp_path / "set/a.jsonl", b'{"text": "a"}\n')
    for name in ("plan.json", "runtime.json", "ledger/x.jsonl", "dataset/parts/0/records/0.jsonl"):
        write(tmp_path / "set/out" / name, b'{"text": "a"}\n')
    assert [file.label for file in list_inputs(str(tmp_path / "set"), "auto")] == ["a.jsonl"]
    assert not_read(tmp_path / "set") == {"(in the folder of a run)": (4, "out/dataset/parts/0/records/0.jsonl")}
    assert len(list_inputs(str(tmp_path / "set/out"), "auto")) == 2
    (tmp_path / "set/a.jsonl").unlink()
    with pytest.raises(UserError, match="is read where it, or a folder in it, is named itself"):
        list_inputs(str(tmp_path / "set"), "auto")


def test_a_saved_data_set_of_hugging_face_is_named_with_the_remedy(tmp_path):
    """Its notes are JSON, and no documents."""
    for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow"):
        write(tmp_path / "set/train" / name, b'{"text": 1}')
    with pytest.raises(UserError, match=r"no input of .* 1 .arrow .*; Arrow is read in a folder of save_to_disk"):
        list_inputs(str(tmp_path / "set"), "auto")
    assert len(list_inputs(str(tmp_path / "set"), "auto", as_older=True)) == 2


def test_an_older_run_goes_on_with_the_notes_that_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr(replacing, "is_nothing_written", lambda paths: False)
    write(tmp_path / "set/a.json", b'[{"text": "one"}]')
    arguments = ["+experiments=text", "text.tokenizer=embedded", f"data.raw_data_dir={tmp_path}/set"]
    config = compose([*arguments, f"data.token_output_dir={tmp_path}/out"])
    planning.prepare(config)
    write(tmp_path / "set/a_stats.json", b'{"text": "two"}')
    planning.prepare(config)
    values = sealed.read_json(tmp_path / "out/plan.json")
    del values["found"]
    (tmp_path / "out/plan.json").write_bytes(sealed.to_json(values))
    with pytest.raises(UserError, match=r"a_stats.json is new"):
        planning.prepare(config)


def test_a_failed_stat_is_not_a_missing_file(tmp_path, monkeypatch):
    write(tmp_path / "set/a.png", b"x")

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folder.os, "stat", fail)
    with pytest.raises(UserError, match="Input/output error"):
        list(folder.walk(str(tmp_path / "set")))


def test_plan_and_status_say_what_is_not_read(tmp_path, caplog):
    """Outside of the fingerprint: a file that appears beside the inputs changes no run."""
    write(tmp_path / "set/a.jsonl", b'{"text": "one"}\n')
    write(tmp_path / "set/b.arrow", b"x")
    arguments = ["+experiments=text", "text.tokenizer=embedded", f"data.raw_data_dir={tmp_path}/set"]
    config = compose([*arguments, f"data.token_output_dir={tmp_path}/out"])
    plan = planning.prepare(config)
    assert [(item.ending, item.count, item.example) for item in plan.not_read] == [(".arrow", 1, "b.arrow")]
    assert "2 files found: 1 inputs, 1 not read: 1 .arrow (b.arrow); Arrow is read in a folder of" in caplog.text
    assert dataclasses.asdict(plan.found) == {"files": 2, "inputs": 1, "parts": 0}
    assert load_plan(tmp_path / "out") == plan
    assert dataclasses.replace(plan, found=None, not_read=()).fingerprint == plan.fingerprint
    status = read_status(tmp_path / "out")
    assert status.not_read == {".arrow": 1}
    assert "not read 1 files of the inputs' folders: 1 .arrow" in describe(status, tmp_path / "out")
    assert run_task(tmp_path / "out", StopAfter()) is TaskOutcome.FINISHED
    extra = combine(tmp_path / "out", CombineOptions()).extra
    assert extra["found"] == {"files": 2, "inputs": 1, "parts": 0}
    assert extra["not_read"] == [{"ending": ".arrow", "count": 1, "example": "b.arrow"}]
    observer = Observer(tmp_path / "out")
    page = render(observer, observer.look())
    assert '<section id="files">' in page
    assert "b.arrow" in page
    assert "Found were 2 files: 1 inputs, 0 parts of samples, 1 not read." in page
