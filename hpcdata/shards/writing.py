"""Writing shards: append-only checkpoints, and the commit that publishes a shard.

Only the attempt in the name writes to a `tmp_` folder. A checkpoint is `fsync` of the column files and then an
atomically replaced `progress.json`, which vouches for a prefix of each file by size and sha256. A new attempt copies
the vouched prefix of the fullest valid checkpoint into a folder of its own, so that a process that comes back from
the dead still writes to the old files and cannot reach the new ones; it learns at its next checkpoint that its
folder is gone (`LostShard`).

Commit: fsync everything, write `shard.json`, remove `progress.json`, rename the folder. A crash between any two of
these steps leaves a folder that the next attempt can finish.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpcdata.base import digest, files
from hpcdata.shards.columns import TABLES, columns
from hpcdata.shards.counts import Counts, Sizes
from hpcdata.shards.rejects import REJECTS
from hpcdata.shards.shard import (
    PROGRESS,
    SHARD,
    WORK,
    Progress,
    ShardHeader,
    ShardSummary,
    forget_attempts,
    list_files,
    read_summary,
)
from hpcdata.shards.tables import Encoded, to_columns

log = logging.getLogger(__name__)


class LostShard(Exception):
    """Another attempt has taken this shard over: what this process still had in memory is not needed."""


class ShardConflict(Exception):
    """Another attempt committed other bytes for this shard than this process made."""

    def __init__(self, name: str, paths: list[str]) -> None:
        super().__init__(f"shard {name} was committed with other bytes by another process: {', '.join(paths)}")
        self.paths = paths


class ShardWriter:
    """Appends encoded batches to one shard, checkpoints, commits. Make one with `takeover.open_shard`."""

    def __init__(self, shards: Path, header: ShardHeader, attempt: str) -> None:
        self.header = header
        self.samples_read = 0
        self._shards = shards
        self._folder = shards / f"tmp_{header.name}.{attempt}"
        self._sizes = Sizes()
        self._counts = Counts()
        self._content = 0
        self._files: dict[str, AppendFile] = {}
        self._work: int | None = None

    @property
    def counts(self) -> Counts:
        return self._counts

    def append(self, batch: Encoded) -> None:
        """Adds the next samples of the shard; they are safe after the next `checkpoint`."""
        rows, sizes, content = to_columns(batch.rows(), self.header.id_dtype, self._sizes)
        for path, values in rows.items():
            self._files[path].append(values)
        lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in batch.rejects]
        self._files[REJECTS].append("".join(lines).encode(errors="replace"))
        counts = batch.counts()
        self._sizes, self._counts = sizes, self._counts + counts
        self._content = digest.add(self._content, content)
        self.samples_read += counts.inputs

    def checkpoint(self) -> None:
        """Makes everything appended so far durable. Raises LostShard when another attempt removed the folder."""
        for file in self._files.values():
            file.sync()
        progress = Progress(
            fingerprint=self.header.fingerprint,
            samples_read=self.samples_read,
            sizes=self._sizes,
            counts=self._counts,
            content_digest=digest.to_hex(self._content),
            files={path: (file.size, file.sha256()) for path, file in self._files.items()},
        )
        try:
            files.write_atomic(self._folder / PROGRESS, progress.to_json())
        except FileNotFoundError:
            raise LostShard(self.header.name) from None

    def note_work(self, *, left: bool = False) -> None:
        """Notes which sample comes next, or that this attempt leaves in order; for successors, see `poison`.

        One write of a few bytes without fsync: it need not outlive the machine, only this process.
        """
        if self._work is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            try:
                self._work = os.open(self._folder / WORK, flags, 0o644)
            except FileNotFoundError:
                raise LostShard(self.header.name) from None
        os.pwrite(self._work, (b"" if left else str(self.samples_read).encode()).ljust(20), 0)

    def commit(self) -> bool:
        """Publishes the shard; False when another attempt did so first with the same bytes.

        Raises ShardConflict when it did so with other bytes, LostShard when the folder was taken away.
        """
        if self.samples_read != self.header.num_inputs or not self._counts.is_balanced():
            raise AssertionError(
                f"shard {self.header.name} has {self.samples_read} of {self.header.num_inputs} samples"
            )
        for file in self._files.values():
            file.flush()
        self.close()
        try:
            seal(self._folder, self.header, self._sizes, self._counts, digest.to_hex(self._content), self._known())
        except FileNotFoundError:
            raise LostShard(self.header.name) from None
        return publish(self._shards, self._folder, self.header.name)

    def seal_partial(self) -> ShardSummary:
        """Seals what was read so far in place, the rest of the shard accounted for as missing; not published."""
        self.close()
        missing = self.header.num_inputs - self.samples_read
        counts = self._counts + Counts(inputs=missing, missing=missing)
        return seal(self._folder, self.header, self._sizes, counts, digest.to_hex(self._content), self._known())

    def close(self) -> None:
        """Closes the files; what was neither checkpointed nor committed is lost."""
        if self._work is not None:
            os.close(self._work)
            self._work = None
        for file in self._files.values():
            file.close()

    def start(self) -> None:
        """Makes the attempt's folder, empty. Raises LostShard when another attempt removes it meanwhile."""
        self._folder.mkdir()
        try:
            for table in TABLES:
                (self._folder / table).mkdir()
            for path in [*(column.path for column in columns(self.header.id_dtype)), REJECTS]:
                self._files[path] = AppendFile(self._folder / path)
            for table in TABLES:  # a checkpoint syncs contents only: the names of the files are there once for all
                files.sync_folder(self._folder / table)
            files.sync_folder(self._shards)
        except FileNotFoundError:
            raise LostShard(self.header.name) from None

    def adopt(self, old: Path, progress: Progress) -> None:
        """Makes the attempt's folder with the vouched prefix of another; raises ValueError when that is damaged."""
        self.start()
        for path, file in self._files.items():
            size, sha256 = progress.files[path]
            file.append_prefix(old / path, size)
            if file.sha256() != sha256:
                raise ValueError(f"{old.name}/{path}: the first {size} bytes are not what progress.json vouches for")
        self.samples_read = progress.samples_read
        self._sizes, self._counts = progress.sizes, progress.counts
        self._content = digest.from_hex(progress.content_digest)
        self.checkpoint()

    def _known(self) -> dict[str, str]:
        return {path: file.sha256() for path, file in self._files.items()}

    def is_gone(self) -> bool:
        """Whether another attempt has removed the folder."""
        return not self._folder.exists()

    def discard(self) -> None:
        self.close()
        files.remove_folder(self._folder)


def seal(
    folder: Path, header: ShardHeader, sizes: Sizes, counts: Counts, content_digest: str, known: Mapping[str, str]
) -> ShardSummary:
    """Turns a folder of complete column files into a shard: drops empty files, adds meta.json files and shard.json.

    `known`: sha256 of the files that the caller has hashed while writing them.
    """
    _write_metas(folder, header.id_dtype, sizes)
    (folder / WORK).unlink(missing_ok=True)
    if not (folder / REJECTS).stat().st_size:
        (folder / REJECTS).unlink()
    names = sorted(list_files(folder) - {PROGRESS, SHARD})
    if gone := {path for path in known if _has_rows(path, sizes)} - set(names):
        raise FileNotFoundError(f"{folder}: {', '.join(sorted(gone))} disappeared")
    for name in names:
        files.sync_file(folder / name)
    for table in TABLES:
        files.sync_folder(folder / table)
    summary = ShardSummary(
        header=header,
        counts=counts,
        sizes=sizes,
        content_digest=content_digest,
        files={name: known.get(name) or digest.sha256_file(folder / name) for name in names},
    )
    files.write_atomic(folder / SHARD, summary.to_json())
    (folder / PROGRESS).unlink(missing_ok=True)
    files.sync_folder(folder)
    return summary


def publish(shards: Path, folder: Path, name: str) -> bool:
    """Renames a sealed folder to its final name and removes what other attempts left. See `ShardWriter.commit`."""
    try:
        published = files.publish_folder(folder, shards / name)
        if not published and not (shards / name / SHARD).exists():  # what an interrupted removal has left
            files.remove_folder(shards / name)
            published = files.publish_folder(folder, shards / name)
    except FileNotFoundError:  # another attempt found our sealed folder and published it
        if not (shards / name / SHARD).exists():
            raise LostShard(name) from None
        return False
    if not published:
        _compare(folder, shards / name)
        files.remove_folder(folder)
    forget_attempts(shards, name)
    files.empty_trash(shards, name)
    return published


def _has_rows(path: str, sizes: Sizes) -> bool:
    """Whether a column file has rows; empty ones, and the rejects, may be absent."""
    return bool(vars(sizes).get(path.split("/")[0], 0))


def _compare(ours: Path, theirs: Path) -> None:
    """Both are sealed: the same shard.json means the same bytes, as it has the sha256 of every file."""
    if (ours / SHARD).read_bytes() == (theirs / SHARD).read_bytes():
        return
    mine, other = read_summary(ours).files, read_summary(theirs).files
    paths = sorted(path for path in mine.keys() | other.keys() if mine.get(path) != other.get(path))
    files.remove_folder(ours)
    raise ShardConflict(theirs.name, paths or [SHARD])


def _write_metas(folder: Path, id_dtype: str, sizes: Sizes) -> None:
    """The meta.json files of tensordict's memory-mapped layout; tables without rows are left out with their files."""
    rows = dataclasses.asdict(sizes)
    root: dict[str, object] = {}
    for table in TABLES:
        meta: dict[str, object] = {}
        for column in columns(id_dtype):
            if column.table != table:
                continue
            if not rows[table]:
                (folder / column.path).unlink(missing_ok=True)
                continue
            shape = [rows[table], column.width] if column.width else [rows[table]]
            dtype = f"torch.{column.dtype}"
            meta[column.name] = {"device": "cpu", "shape": shape, "dtype": dtype, "is_nested": False}
        if rows[table]:
            (folder / table / "meta.json").write_bytes(_tensordict_meta(meta, [rows[table]]))
            root[table] = {"type": "TensorDict"}
    (folder / "meta.json").write_bytes(_tensordict_meta(root, []))


def _tensordict_meta(entries: dict[str, object], shape: list[int]) -> bytes:
    kind = {"_type": "<class 'tensordict._td.TensorDict'>", "_format_version": 1, "_class": "tensordict:TensorDict"}
    return json.dumps({**entries, "shape": shape, "device": "cpu", **kind}).encode()


class AppendFile:
    """A file that only grows, with a running sha256 of its content."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed with the writer
        self._hasher = hashlib.sha256()
        self._buffer = bytearray()
        self.size = 0

    def append(self, data: bytes | np.ndarray) -> None:
        """data: bytes, or rows that lie together in memory."""
        view = memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        self._hasher.update(view)
        self.size += len(view)
        if len(self._buffer) + len(view) < 2**20:
            self._buffer += view
        else:
            self.flush()
            self._write(view)

    def append_prefix(self, source: Path, size: int) -> None:
        if not size:
            return  # `seal` removes empty files, and may be killed before it is done
        with open(source, "rb") as file:
            while size and (chunk := file.read(min(size, 2**20))):
                self.append(chunk)
                size -= len(chunk)

    def sha256(self) -> str:
        return self._hasher.hexdigest()

    def sync(self) -> None:
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()

    def flush(self) -> None:
        with memoryview(self._buffer) as view:
            self._write(view)
        self._buffer.clear()

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[self._file.write(view) :]
