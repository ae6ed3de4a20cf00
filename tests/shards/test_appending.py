"""Files that only grow, and whole ones that are written behind the caller.   pytest tests/shards/test_appending.py"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from hpcdata import convert
from hpcdata.base import files
from hpcdata.base.command import DONE
from hpcdata.base.digest import sha256_file, sha256_files
from hpcdata.shards import appending
from hpcdata.shards.appending import SMALL_BYTES, FilesBehind
from hpcdata.shards.schema import FILES
from hpcdata.shards.shard import read_progress
from tests.llava_tables import picture, row, write
from tests.trees import sha256_tree

MIB = 2**20
LARGE = bytes(SMALL_BYTES)


def test_what_is_written_is_sent_on_to_the_disk_long_before_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "start_writing", lambda _, first, size: started.append((first, size)))
    pieces = [os.urandom(size) for size in (100, 3 * MIB, 7, 9 * MIB, MIB, 17 * MIB)]
    file = appending.AppendFile(tmp_path / "file")
    for piece in pieces:
        file.append(piece)
    file.close()
    ends = [first + size for first, size in started]
    assert [first for first, _ in started] == [0, *ends[:-1]]
    assert file.size - ends[-1] < 8 * MIB
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def test_it_is_no_error_where_nothing_can_be_sent_on() -> None:
    reader, writer = os.pipe()
    files.start_writing(writer, 0, 1)
    os.close(reader)
    os.close(writer)


def test_all_are_there_once_they_are_waited_for(tmp_path: Path) -> None:
    with contextlib.closing(FilesBehind()) as behind:
        for number in range(200):
            behind.add(tmp_path / str(number), memoryview(LARGE[: SMALL_BYTES - number % 2] + bytes([number])))
        behind.wait()
        assert [(tmp_path / str(number)).read_bytes()[-1] for number in range(200)] == list(range(200))


def test_no_more_bytes_wait_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, released = threading.Semaphore(0), list[int]()

    def release() -> None:
        released.append(1)
        may_write.release()

    monkeypatch.setattr(appending, "_write", lambda path, data: may_write.acquire(timeout=10))
    monkeypatch.setattr(appending, "MOST_BYTES", 3 * SMALL_BYTES)
    with contextlib.closing(FilesBehind()) as behind:
        for _ in range(3):
            behind.add(tmp_path / "x", LARGE)
        assert not released
        threading.Timer(0.02, release).start()
        behind.add(tmp_path / "x", LARGE)
        assert released
        may_write.release(3)


def test_what_goes_wrong_is_raised_later_and_names_the_file(tmp_path: Path) -> None:
    with contextlib.closing(FilesBehind()) as behind:
        behind.add(tmp_path / "gone" / "a", LARGE)
        with pytest.raises(FileNotFoundError, match="gone/a"):
            behind.wait()
        behind.add(tmp_path / "gone" / "b", LARGE)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_vouches_for_no_picture_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in/x.parquet", [row(f"{number}", picture(number) + LARGE) for number in range(12)])
    line = ["llava-parquet", str(source), f"{tmp_path}/out", "loader.batch_size=1", "data.save_tmp_interval=0.000001"]
    names, really = list[str](), appending._write

    def failing(path: Path | str, data: bytes) -> None:
        names.append(os.path.basename(path))
        if len(names) > 5:
            raise OSError(errno.EIO, "it failed", str(path))
        really(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(appending, "_write", failing)
        assert convert.main(line) != DONE
    (folder,) = tmp_path.glob("out.run/shards/tmp_*")
    progress = read_progress(folder)
    assert progress is not None
    assert progress.samples_read == 5
    assert {path.name for path in (folder / FILES).iterdir()} == set(names[:5])
    assert convert.main(line) == DONE
    assert convert.main(["llava-parquet", str(source), f"{tmp_path}/other"]) == DONE
    assert sha256_tree(tmp_path / "out/image") == sha256_tree(tmp_path / "other/image")


def test_hashes_of_many_are_those_of_each(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(80)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    assert sha256_files(paths) == [sha256_file(path) for path in paths]
    paths[70].unlink()
    with pytest.raises(FileNotFoundError, match="70"):
        sha256_files(paths)
