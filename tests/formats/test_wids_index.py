"""python -m pytest tests/formats/test_wids_index.py

The tests that open an index with wids need webdataset < 1, the last to hold it: `pip install --no-deps --target DIR
'webdataset<1'` and HPCDATA_TEST_WIDS=DIR.
"""

import contextlib
import errno
import gzip
import hashlib
import importlib
import io
import json
import os
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import index as index_command
from hpcdata.base.errors import UserError
from hpcdata.formats import wids_index as index
from hpcdata.sources import list_inputs
from tests.selection import examples
from tests.sources.test_inputs import fail_at

PAIRS = [("0.jpg", b"picture"), ("0.txt", b"text 0"), ("1.jpg", b"picture"), ("1.txt", b"text 1")]


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="session")
def wids():
    sys.path.insert(0, os.environ.get("HPCDATA_TEST_WIDS", ""))
    try:
        return importlib.import_module("wids.wids")
    except ImportError:
        pytest.skip("wids is not installed (it is part of webdataset < 1): set HPCDATA_TEST_WIDS")
    finally:
        del sys.path[0]
        with contextlib.suppress(OSError):
            os.rmdir("/tmp/_wids_cache")  # which it makes when it is imported


def test_index_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_tar(tmp_path / f"set-{number}.tar", PAIRS[: 2 + 2 * (number > 0)])
    assert index_command.main(["set-*.tar", "--workers", "2", "--checksums"]) == 0
    assert "shardindex.json: 3 tars, 5 samples" in capsys.readouterr().out
    found = json.loads((tmp_path / "shardindex.json").read_text())
    assert (found["__kind__"], found["wids_version"], found["name"]) == ("wids-shard-index-v1", 1, "set")
    data = (tmp_path / "set-1.tar").read_bytes()
    assert found["shardlist"][1] == {
        "url": "set-1.tar",
        "nsamples": 2,
        "filesize": len(data),
        "md5sum": hashlib.md5(data).hexdigest(),
    }
    assert [(file.label, file.num_declared) for file in list_inputs(str(tmp_path), "auto")] == [
        ("set-0.tar", 1),
        ("set-1.tar", 2),
        ("set-2.tar", 2),
    ]


@pytest.mark.parametrize(("pattern", "url"), [("d/a.tar", "../d/a.tar"), ("{tmp}/d/a.tar", "{tmp}/d/a.tar")])
def test_urls_lead_from_the_index_to_the_tars(tmp_path, monkeypatch, pattern, url):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "d/a.tar", PAIRS)
    (tmp_path / "out").mkdir()
    assert index_command.main([pattern.format(tmp=tmp_path), "-o", "out/index.json"]) == 0
    (shard,) = json.loads((tmp_path / "out/index.json").read_text())["shardlist"]
    assert shard["url"] == url.format(tmp=tmp_path)
    assert len(list_inputs(str(tmp_path / "out"), "auto")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none.tar"], "does not exist"),
        (["{tmp}/a.tar.gz"], "is no plain tar"),
        (["{tmp}/a.tar", "-o", "{tmp}/no/index.json"], "does not exist"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, arguments, message):
    write_tar(tmp_path / "a.tar", PAIRS)
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert index_command.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_damage_is_reported(tmp_path, capsys):
    path = write_tar(tmp_path / "a.tar", PAIRS)
    data = bytearray(path.read_bytes())
    data[1024] ^= 0xFF
    path.write_bytes(data)
    assert index_command.main([str(path), "-o", str(tmp_path / "index.json")]) == 0
    assert f"{path} is damaged at byte 1024" in capsys.readouterr().err


def test_wids_opens_the_index_and_reads_every_sample(tmp_path, wids):
    """Equal names in different folders too."""
    for folder in ("x", "y"):
        write_tar(tmp_path / folder / "a.tar", [(name, data + folder.encode()) for name, data in PAIRS])
    assert index_command.main([f"{tmp_path}/*/a.tar", "-o", str(tmp_path / "index.json")]) == 0
    dataset = wids.ShardListDataset(
        str(tmp_path / "index.json"), transformations=[], localname=lambda url: url, keep=True
    )
    assert len(dataset) == 4
    assert [dataset[row][".txt"].read() for row in range(4)] == [b"text 0x", b"text 1x", b"text 0y", b"text 1y"]


NAMES = st.text("ab./_", min_size=1, max_size=6).filter(lambda name: not name.endswith("/"))


@settings(max_examples=examples(200), deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=8))
def test_samples_are_counted_as_wids_counts_them(tmp_path_factory, wids, names):
    path = write_tar(tmp_path_factory.getbasetemp() / "any.tar", [(name, b"data") for name in names])
    assert index.index_tar(str(path), has_checksum=False).num_samples == wids.compute_num_samples(str(path))


@pytest.mark.parametrize("data", [gzip.compress(b"tar" * 999, mtime=0), b"text\n" * 999, bytes(range(256)) * 9])
def test_what_is_no_tar_fails_loudly(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar is no plain tar, whatever its name says"):
        index.make_index([str(tmp_path / "a.tar")], str(tmp_path / "index.json"), num_workers=1, has_checksums=False)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    ("names", "warning"),
    [
        (["a%20b.tar"], "a%20b.tar: wids takes"),
        (["a#b.tar", "c.tar"], "a#b.tar: wids takes"),
        (["a?.tar"], "wids takes"),
        (["x/0.tar", "y/0.tar"], "0.tar is in several folders: with cache_dir"),
        (["x/0.tar", "y/1.tar"], ""),
    ],
)
def test_names_that_wids_misreads_are_said(tmp_path, capsys, names, warning):
    paths = [str(write_tar(tmp_path / name, PAIRS)) for name in names]
    assert index_command.main([*paths, "-o", str(tmp_path / "index.json")]) == 0
    said = capsys.readouterr().err
    assert warning in said
    assert bool(said) == bool(warning)


def test_what_cannot_be_looked_at_is_no_missing_tar(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", PAIRS)
    fail_at(monkeypatch, tmp_path / "a.tar", errno.EIO)
    with pytest.raises(UserError, match=r"cannot read .*a\.tar: Input/output error"):
        index.make_index([str(tmp_path / "*.tar")], str(tmp_path / "index.json"), num_workers=1, has_checksums=False)
