"""Durable file operations: everything that hpcdata publishes goes through here.

The order is always: write under a temporary name, fsync, make visible in one atomic step, fsync the folder. The
functions here are the whole interface to the file system's guarantees (exclusive create, atomic replace, exclusive
rename of a folder), so that other kinds of storage can be put behind the same few names.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from hpcdata.base import reads
from hpcdata.base.reads import naming

TRASH = ".trash_"
_FEW_FILES, _SYNC_THREADS = 16, 16
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Nothing can be written on the whole disk."""
_WRITE = 2
"""SYNC_FILE_RANGE_WRITE."""
_EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)


@contextlib.contextmanager
def modes_like(folder: Path) -> Iterator[None]:
    """Inside, new files and folders of this process and its children have the permissions of `folder`.

    So the files that one user adds to the run of a group are not closed to the others, whatever the umask; but never
    may everybody write. Where there is no such folder yet, the umask decides. For commands only: the umask is one for
    the whole process.
    """
    try:
        mode = folder.stat().st_mode
    except OSError:
        yield
        return
    former = os.umask(~mode & 0o077 | 0o002)
    try:
        yield
    finally:
        os.umask(former)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`, durably: a reader sees the old or the new content, never a mixture."""
    temporary = _write_temporary(path, data)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_exclusive(path: Path, data: bytes) -> bool:
    """Creates `path` with all of `data` at once, durably; False when it exists already."""
    temporary = _write_temporary(path, data)
    try:
        if not place(temporary, path):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def place(temporary: Path, path: Path) -> bool:
    """Gives a file its name, unless anything has it: then False, and the file keeps its own. Not durable yet."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):  # no hard links here: the caller's claim keeps others out
            return False
        os.replace(temporary, path)
    else:
        os.unlink(temporary)
    return True


def publish_folder(source: Path, target: Path) -> bool:
    """Renames folder `source` to `target`; False when `target` is there already, and then nothing is changed.

    rename(2) refuses to put a folder over one with content, so the check and the step are one.
    """
    if not _moved(source, target):
        return False
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)
    return True


@contextlib.contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Leaves no half of `folder` behind when what makes it fails."""
    try:
        yield
    except Exception:
        with contextlib.suppress(OSError):
            remove_folder(folder)
        raise


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """os.write, until all of it is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_all_at(descriptor: int, data: memoryview, begin: int) -> None:
    """os.pwrite, until all of it is written."""
    while data:
        count = os.pwrite(descriptor, data, begin)
        data, begin = data[count:], begin + count


def start_writing(descriptor: int, first_byte: int, num_bytes: int) -> None:
    """Has the kernel begin to write these bytes of a file to its disk, so that a later fsync waits for less.

    It promises nothing; where the kernel has no such call, or the file system no use for it, nothing happens.
    """
    if (call := _system_call("sync_file_range", "inni")) is not None:
        call(descriptor, first_byte, num_bytes, _WRITE)


def allocate(descriptor: int, size: int) -> None:
    """Has the file system find the room for a file of that size, so that writes to it need not wait for one another.

    It promises as little: os.posix_fallocate would write zeros where the file system has no such call.
    """
    if (call := _system_call("fallocate", "iinn")) is not None:
        call(descriptor, 0, 0, size)


@cache
def _system_call(name: str, arguments: str) -> Callable[[int, int, int, int], int] | None:
    """arguments: a letter for each, `i` an int, `n` a place or a size."""
    import ctypes

    call = getattr(ctypes.CDLL(None), name, None)
    if call is not None:
        call.argtypes = [{"i": ctypes.c_int, "n": ctypes.c_int64}[letter] for letter in arguments]
    return call


def sync_file(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Sequence[Path | str]) -> None:
    """`sync_file` of each: many at once in threads, so that the file system writes its journal for several together."""
    if len(paths) <= _FEW_FILES:
        _sync_each(paths)
        return
    with ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="sync") as threads:
        for _ in threads.map(_sync_each, (paths[number::_SYNC_THREADS] for number in range(_SYNC_THREADS))):
            pass


def _sync_each(paths: Sequence[Path | str]) -> None:
    for path in paths:
        sync_file(path)


def sync_folder(path: Path) -> None:
    """Makes creations, renames and removals in the folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Removes a folder of ours; one that somebody else removes at the same time is fine.

    It is renamed first, in one step: a process that still works in it finds nothing under the old name, instead of a
    folder that is losing its files. A crash in between leaves `.trash_<name>`, see `empty_trash`.
    """
    trash = path.with_name(f"{TRASH}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        if not _moved(path, trash):
            shutil.rmtree(trash, ignore_errors=True)  # what a killed removal of the same name has left
            _moved(path, trash)
        shutil.rmtree(trash, ignore_errors=True)


def empty_trash(folder: Path, name: str) -> None:
    """Removes what a killed call of `remove_folder` has left of `folder/name`."""
    shutil.rmtree(folder / f"{TRASH}{name}", ignore_errors=True)


def link_folder(source: Path, target: Path) -> None:
    """Makes `target` hold the same files by hard links, or by durable copies where the file system has none."""
    for folder, _, names in reads.walk(source):
        copy = target / Path(folder).relative_to(source)
        copy.mkdir()
        for name in names:
            link_file(f"{folder}/{name}", f"{copy}/{name}")
    for folder, _, _ in reads.walk(target, topdown=False):  # a folder when those below it have their names in it
        sync_folder(Path(folder))


def link_file(source: Path | str, target: Path | str) -> None:
    """Makes `target` the same file by a hard link, or a durable copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (*_NO_LINKS, errno.EXDEV):
            raise
        shutil.copyfile(source, target)
        sync_file(target)


def read_json(path: Path) -> Any:
    """Raises ValueError for what is no JSON."""
    return parse_json(path.read_bytes(), path.name)


def parse_json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None


def parse_lenient(data: bytes) -> Any:
    """The fast parser, but for what it refuses and `to_bytes` writes. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data:
            raise
        return parse_json(data, "it")


def to_json(value: Any) -> bytes:
    """The one spelling of JSON in files whose bytes matter: sorted keys, one-space indent, a final newline."""
    return to_bytes(json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def to_bytes(text: str) -> bytes:
    """UTF-8; bytes of names that are not, and half surrogate pairs, as JSON escapes them: `\\udcff`."""
    return text.encode(errors="backslashreplace")


def is_utf8(path: Path) -> bool:
    """Whether a name can be given to libraries that take text alone."""
    return re.search("[\ud800-\udfff]", str(path)) is None


def _moved(source: Path, target: Path) -> bool:
    """Renames a folder; False when there is another with content under the new name."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in _EXISTS:
            return False
        raise
    return True


def _write_temporary(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with naming(path), open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
