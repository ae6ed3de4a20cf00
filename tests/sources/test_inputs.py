"""python -m pytest tests/sources/test_inputs.py"""

import errno
import json
import logging
import os
import subprocess
import sys

import pytest

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.encoders.text.tokenizer import identify
from hpcdata.sources import Options, list_inputs, scan, warn_of_differences
from hpcdata.sources.patterns import expand_braces
from tests.sources.source_files import json_lines, pairs, read_all, summary, write, write_tar


def labels(patterns, source="auto"):
    return [file.label for file in list_inputs(patterns, source)]


def formats(patterns, source="auto"):
    return [file.format for file in list_inputs(patterns, source)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", ["a"]),
        ("a{b,c}", ["ab", "ac"]),
        ("{b,}c", ["bc", "c"]),
        ("x-{0..3}", ["x-0", "x-1", "x-2", "x-3"]),
        ("x-{08..11}.tar", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..9..4}", ["0", "4", "8"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{a,b{1,2}}", ["a", "b1", "b2"]),
        ("{a}", ["{a}"]),
        ("{a", ["{a"]),
        ("a}", ["a}"]),
        ("{{a,b}}", ["{a}", "{b}"]),
    ],
)
def test_braces(pattern, expected):
    assert list(expand_braces(pattern)) == expected


def test_globs_braces_and_lists_keep_their_order(tmp_path):
    for name in ("c.tar", "a.tar", "b.tar"):
        write_tar(tmp_path / name, pairs(1))
    assert labels(f"{tmp_path}/*.tar") == ["a.tar", "b.tar", "c.tar"]
    assert labels(f"{tmp_path}/{{c,a}}.tar") == ["c.tar", "a.tar"]
    assert labels([f"{tmp_path}/c.tar", f"{tmp_path}/[ab].tar"]) == ["c.tar", "a.tar", "b.tar"]


@pytest.mark.parametrize("pattern", ["{0}", "{0}/**", "{0}/*"])
def test_the_folder_of_the_run_is_never_an_input(tmp_path, pattern):
    write_tar(tmp_path / "a.tar", pairs(1))
    write_tar(tmp_path / "out/dataset/b.tar", pairs(1))
    (tmp_path / "link").symlink_to("out")
    found = list_inputs(pattern.format(tmp_path), "webdataset", without=str(tmp_path / "link"))
    assert [file.label for file in found] == ["a.tar"]


def test_a_name_with_braces_in_it(tmp_path):
    write_tar(tmp_path / "{a,b}.tar", pairs(1))
    assert labels(f"{tmp_path}/{{a,b}}.tar") == ["{a,b}.tar"]


def test_equal_names_in_different_folders(tmp_path):
    """UPSTREAM 16: they have different labels, so all keys differ."""
    for folder in ("x", "y"):
        write_tar(tmp_path / folder / "0000.tar", pairs(2))
    assert labels(f"{tmp_path}/*/0000.tar") == ["x/0000.tar", "y/0000.tar"]
    keys = {record.key for file in list_inputs(f"{tmp_path}/*/*.tar", "auto") for record in read_all(file)}
    assert len(keys) == 4


def test_inputs_are_the_same_every_time(tmp_path):
    """UPSTREAM 17: nothing is sampled or shuffled, with or without an index."""
    for number in range(20):
        write_tar(tmp_path / f"{number:02d}.tar", pairs(1))
    assert list_inputs(str(tmp_path), "auto") == list_inputs(f"{tmp_path}/{{00..19}}.tar", "webdataset")


def test_the_same_file_twice_is_read_once(tmp_path, caplog):
    write_tar(tmp_path / "a.tar", pairs(1))
    (tmp_path / "b.tar").symlink_to("a.tar")
    with caplog.at_level(logging.WARNING):
        assert labels([f"{tmp_path}/a.tar", f"{tmp_path}/*.tar"]) == ["a.tar"]
    assert "given twice" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{tmp}/none.tar", "input {tmp}/none.tar does not exist"),
        ("{tmp}/*.zip", r"no input matches {tmp}/\*.zip"),
        ("{tmp}/{{a,b,c}}.tar", "2 of 3 inputs of .* do not exist, the first is {tmp}/b.tar"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar is remote"),
        ("pipe:curl x", "is remote"),
        ("", "data.raw_data_dir is empty"),
        ([], "data.raw_data_dir is empty"),
        ("{tmp}/notes.pdf", "its name has no known ending, and there is not a byte in it"),
        ("{tmp}/empty", "holds no input of data.source=auto"),
        ("{tmp}", r"expected"),
    ],
)
def test_what_is_not_there(tmp_path, pattern, message):
    write_tar(tmp_path / "a.tar", pairs(1))
    write(tmp_path / "notes.pdf", b"")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "index.json", b'{"shardlist": 3, "a": "expected"}')
    pattern = pattern.format(tmp=tmp_path) if isinstance(pattern, str) else pattern
    message = message.format(tmp=tmp_path)
    if pattern == str(tmp_path):
        message = "has no shardlist"
    with pytest.raises(UserError, match=message):
        list_inputs(pattern, "auto")


def test_a_list_of_records_beside_its_pictures_is_no_sidecar(tmp_path):
    """As LLaVA's folders have it: the pictures would be read without their conversations."""
    write(tmp_path / "set/image/1.png", b"\x89PNG\r\n\x1a\n")
    write(tmp_path / "set/1.json", b'{"text": "a record"}')
    assert [item.format for item in list_inputs(str(tmp_path / "set"), "auto")] == ["folder"]
    write(tmp_path / "set/all.json", b' [{"image": "image/1.png", "conversations": []}]')
    with pytest.raises(UserError, match=r"list of records, all.json, beside pictures: name .*/set/all.json"):
        list_inputs(str(tmp_path / "set"), "auto")
    assert [item.format for item in list_inputs(str(tmp_path / "set"), "folder")] == ["folder"]


def test_endless_brace_lists_end(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcdata.sources.patterns._MOST_NAMES", 1000)
    with pytest.raises(UserError, match="expands to more than 1000 names"):
        list_inputs(f"{tmp_path}/{{0..{10**12}}}.tar", "auto")


@pytest.mark.parametrize(
    ("name", "data", "source", "expected"),
    [
        ("a.tgz", b"", "auto", "tar.gz"),
        ("a.TAR", b"", "auto", "tar"),
        ("a.jsonl", b'{"text": "a"}\n', "auto", "text"),
        ("a.jsonl", b'{"content": "a"}\n', "auto", "text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b", "image": "c"}\n', "auto", "jsonl"),
        ("a.jsonl", b'{"image_path": "a", "text_prompt": "b"}\n', "auto", "jsonl"),
        ("a.jsonl", b'{"conversations": []}\n', "auto", "jsonl"),
        ("a.jsonl", b'{"text": "a"}\n', "jsonl", "jsonl"),
        ("a.jsonl.gz", b'{"image": "a"}\n', "text", "text.gz"),
        ("a.json.zst", b'{"text": "a"}\n', "auto", "text.zst"),
        ("a.json", b' [{"image": "a"}]', "auto", "array"),
        ("a.json", b'[{"text": "a"}]', "auto", "textarray"),
        ("a.json.gz", b'[{"text": "a"}]', "jsonl", "array.gz"),
        ("a.json", b'{"text": "a"}\n', "text", "text"),
        ("a.txt", b"text", "auto", "document"),
        ("a.txt.zst", b"text", "text", "document.zst"),
        ("a.parquet", b"", "auto", "parquet"),
    ],
)
def test_formats(tmp_path, name, data, source, expected):
    assert formats(str(write(tmp_path / name, data)), source) == [expected]


@pytest.mark.parametrize(
    ("name", "source"), [("a.jsonl", "webdataset"), ("a.tar", "jsonl"), ("a.tar", "text"), ("a.parquet", "jsonl")]
)
def test_sources_take_their_own_kind_only(tmp_path, name, source):
    with pytest.raises(UserError, match=f"no input of data.source={source}"):
        list_inputs(str(write(tmp_path / name, b"{}")), source)


@pytest.mark.parametrize(
    ("names", "source", "expected"),
    [
        (["b.tar", "sub/a.tar", "c.jpg"], "auto", ["b.tar", "sub/a.tar"]),
        (["b.jsonl", "c.jpg"], "auto", ["b.jsonl"]),
        (["data/b.parquet", "README.txt"], "auto", ["b.parquet"]),
        (["c.jpg", "c.txt", "c.json"], "auto", ["set"]),
        (["a.txt", "b.txt"], "auto", ["a.txt", "b.txt"]),
        (["a.json"], "auto", ["a.json"]),
        (["b.tar", "c.jpg"], "folder", ["set"]),
        (["b.tar", "b.jsonl"], "jsonl", ["b.jsonl"]),
        (["b.tar", "b.txt", "a.parquet"], "text", ["a.parquet", "b.txt"]),
    ],
)
def test_folders(tmp_path, names, source, expected):
    for name in names:
        write(tmp_path / "set" / name, b'{"image": "a"}')
    assert labels(str(tmp_path / "set"), source) == expected


def index(tmp_path, entries, **fields):
    values = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": entries, **fields}
    (tmp_path / "index.json").write_text(json.dumps(values, indent=2))


@pytest.mark.parametrize("name", ["", "/index.json"])
def test_wids_index_as_input(tmp_path, caplog, name):
    for number in range(3):
        write_tar(tmp_path / f"d/{number}.tar", pairs(2))
    index(tmp_path, [{"url": "d/2.tar", "nsamples": 2}, {"url": str(tmp_path / "d/0.tar"), "nsamples": 5}])
    files = list_inputs(f"{tmp_path}{name}", "auto")
    assert [file.label for file in files] == ["2.tar", "0.tar"]
    with caplog.at_level(logging.WARNING):
        assert warn_of_differences(files, [scan(file, every=9, options=Options()) for file in files]) == 1
    assert "0.tar has 2 samples, its index says 5" in caplog.text


def test_wids_index_with_base(tmp_path):
    write_tar(tmp_path / "d/0.tar", pairs(1))
    index(tmp_path, [{"url": "0.tar", "nsamples": 1}], base="d")
    assert labels(str(tmp_path)) == ["0.tar"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "has no shardlist"),
        ([{"url": "no.tar", "nsamples": 1}, {"url": "a.tar", "nsamples": 1}], "1 of 2 listed tars do not exist"),
        ([{"url": "a.tar"}], "entry 0 of the shardlist has no url or no nsamples"),
        ([3], "entry 0"),
        ([{"url": "https://host/a.tar", "nsamples": 1}], "is remote"),
        ([{"url": "a.txt", "nsamples": 1}], "which is no tar"),
    ],
)
def test_a_bad_wids_index(tmp_path, entries, message):
    """UPSTREAM 16: it never wraps around in silence."""
    write_tar(tmp_path / "a.tar", pairs(1))
    write(tmp_path / "a.txt", b"")
    index(tmp_path, entries)
    with pytest.raises(UserError, match=message):
        list_inputs(str(tmp_path), "webdataset")


def test_mixed_kinds_in_one_run(tmp_path):
    write_tar(tmp_path / "a.tar", pairs(1))
    write(tmp_path / "b.jsonl", json_lines([{"text": "row"}]))
    files = list_inputs([f"{tmp_path}/a.tar", f"{tmp_path}/b.jsonl"], "auto")
    assert [summary(read_all(file))[0] for file in files] == ["caption 0 öß", "row"]


def test_imports_are_light():
    heavy = "torch", "pyarrow", "numpy", "webdataset", "datasets", "transformers"
    code = f"import sys, hpcdata.sources, hpcdata.index; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def fail_at(monkeypatch, path, number):
    """Whoever asks what is there gets an error of the machine."""
    real = os.stat

    def stat(asked, *arguments, **options):
        if os.fspath(asked) == str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(asked, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("at", ["set", "set/a.tar", "set/index.json"])
def test_what_cannot_be_looked_at_is_never_taken_for_missing(tmp_path, monkeypatch, at, number):
    write_tar(tmp_path / "set/a.tar", pairs(1))
    index = {"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 1}]}
    write(tmp_path / "set/index.json", json.dumps(index).encode())
    named = [str(tmp_path / "set"), f"{tmp_path}/s*t/{{a,a}}.tar", str(tmp_path / "set/a.tar")]
    assert [len(list_inputs(pattern, "auto")) for pattern in named] == [1, 1, 1]
    fail_at(monkeypatch, tmp_path / at, number)
    concerned = {"set": named[:1], "set/a.tar": named, "set/index.json": named[:1]}[at]
    for pattern in concerned:
        with pytest.raises(UserError, match=f"cannot read {tmp_path / at}: {os.strerror(number)}; try again"):
            list_inputs(pattern, "auto")


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"])
def test_a_tokenizer_that_cannot_be_looked_at_is_not_missing_either(tmp_path, monkeypatch, name):
    write(tmp_path / "tokenizer/tokenizer.json", embedded.path(embedded.TOKENIZER).read_bytes())
    fail_at(monkeypatch, tmp_path / name, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        identify(str(tmp_path / "tokenizer"), add_image_token=False, use_slow_tokenizer=False)


def test_pictures_beside_the_tables_of_img2dataset_are_what_is_read(tmp_path):
    for name in ("00000/0.jpg", "00000/0.txt", "00000/0.json", "00000.parquet", "00000_stats.json", "00001.parquet"):
        write(tmp_path / "set" / name, b"PAR1")
    assert formats(str(tmp_path / "set")) == ["parquet", "parquet"]
    write(tmp_path / "set/00001/1.jpg", b"1")
    assert formats(str(tmp_path / "set")) == ["folder"]
    assert len(list_inputs(str(tmp_path / "set"), "auto", as_older=True)) == 2
    write(tmp_path / "set/more.parquet", b"PAR1")
    assert formats(str(tmp_path / "set")) == ["parquet"] * 3
