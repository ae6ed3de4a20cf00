"""python -m pytest tests/sources/test_account.py: every file of an input folder is read, or counted as not read."""

import dataclasses
import os

import pytest

from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose
from hpcdata.report.status import read_status
from hpcdata.report.summary import describe
from hpcdata.runs import planning
from hpcdata.runs.plan import load_plan
from hpcdata.sources import find_not_read, folder, list_inputs
from tests.sources.source_files import pairs, write, write_tar


def not_read(path, without=""):
    listed = list_inputs(str(path), "auto", without=without)
    return {item.ending: (item.count, item.example) for item in find_not_read(str(path), listed, without)}


def test_archives_of_other_kinds_beside_a_tar(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    for name in ("b.tar.zst", "c.tar.bz2", "d.tar.BZ2", "sub/README", "shardindex.jsn"):
        write(tmp_path / name, b"x")
    expected = {".bz2": (2, "c.tar.bz2"), ".zst": (1, "b.tar.zst")}
    assert not_read(tmp_path) == {**expected, ".jsn": (1, "shardindex.jsn"), "(no ending)": (1, "sub/README")}


def test_twenty_kinds_of_files_add_up(tmp_path):
    """Found = parts of samples + not read, against an independent walk."""
    kinds = ["png", "txt", "heic", "jxl", "mp4", "zip", "7z", "csv", "parquet.crc", "arrow"]
    kinds += ["npy", "pt", "md", "html", "log", "yaml", "lock", "h5", "xlsx", "bin"]
    for number, kind in enumerate(kinds):
        write(tmp_path / "set" / f"part{number % 3}" / f"n{number % 2}.{kind}", b"x")
    write(tmp_path / "set/part0/n0.json", b"{}")  # beside n0.txt, which comes first
    write(tmp_path / "set/part0/n0.caption", b"words")
    write(tmp_path / "elsewhere/e.png", b"x")
    write(tmp_path / "elsewhere/e.exe", b"x")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    found = sum(len(names) for _, _, names in os.walk(tmp_path / "set", followlinks=True))
    counted = not_read(tmp_path / "set")
    parts = {"part0/n0.png", "part1/n1.txt", "part2/n0.heic", "part0/n0.caption", "link/e.png"}
    assert found == len(parts) + sum(count for count, _ in counted.values())
    assert counted[".exe"] == (1, "link/e.exe")
    assert counted[".json"] == (1, "part0/n0.json")


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
        "(folder that is read already)": 1,
    }


def test_the_same_tar_under_two_names_and_the_folder_of_the_run(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    (tmp_path / "b.tar").symlink_to("a.tar")
    write(tmp_path / "out/plan.json", b"{}")
    assert not_read(tmp_path, without=str(tmp_path / "out")) == {"(read already)": (1, "b.tar")}


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
    assert "not read are 1 files: 1 .arrow (b.arrow)" in caplog.text
    assert load_plan(tmp_path / "out") == plan
    assert dataclasses.replace(plan, not_read=()).fingerprint == plan.fingerprint
    status = read_status(tmp_path / "out")
    assert status.not_read == {".arrow": 1}
    assert "not read 1 files of the inputs' folders: 1 .arrow" in describe(status, tmp_path / "out")
