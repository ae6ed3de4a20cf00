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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base import digest, files
from hpcdata.shards.appending import AppendFile, FilesBehind
from hpcdata.shards.counts import Counts
from hpcdata.shards.made import Before, Made
from hpcdata.shards.recovered import RECOVERED, retry_number, to_line
from hpcdata.shards.reject_ledger import REJECTS, RejectRow
from hpcdata.shards.schema import FILES, LISTING
from hpcdata.shards.sealing import LostShard, publish, seal
from hpcdata.shards.shard import (
    PROGRESS,
    WORK,
    Progress,
    ShardHeader,
    ShardSummary,
    read_listing,
    work_note,
)

log = logging.getLogger(__name__)

_as_json = json.JSONEncoder(ensure_ascii=False).encode
"""One for all rows: `json.dumps` makes one for each."""


class ShardWriter:
    """Appends encoded batches to one shard, checkpoints, commits. Make one with `takeover.open_shard`."""

    def __init__(self, shards: Path, header: ShardHeader, attempt: str) -> None:
        self.header = header
        self.samples_read = 0
        self._shards = shards
        self._folder = shards / f"tmp_{header.name}.{attempt}"
        self._schema = header.schema
        self._sizes = self._schema.no_rows()
        self._counts = Counts()
        self._content = 0
        self._files: dict[str, AppendFile] = {}
        self._behind = FilesBehind()
        self._unsynced: list[str] = []
        self._work: int | None = None
        self._is_sealed = False

    @property
    def counts(self) -> Counts:
        return self._counts

    @property
    def num_written(self) -> int:
        return self._counts.written

    def append(self, batch: Made) -> None:
        """Adds the next samples of the shard; they are safe after the next `checkpoint`."""
        laid = batch.lay_out(self._schema, Before(rows=self._sizes, stream_bytes=self._stream_bytes()))
        for column in self._schema.columns:
            self._files[column.path].append(laid.columns[column.path])
        for path, data in laid.streams.items():
            self._files[path].append_all([data] if isinstance(data, bytes) else data)
        for name, content in laid.files:
            self._add_file(name, content, laid.sha256.get(name))
        lines = [f"{_as_json(row.to_mapping())}\n" for row in batch.rejects]
        self._files[REJECTS].append("".join(lines).encode(errors="replace"))
        counts = batch.counts()
        added = {column.table: len(laid.columns[column.path]) for column in self._schema.columns}
        self._sizes = {table: rows + added[table] for table, rows in self._sizes.items()}
        self._counts, self._content = self._counts + counts, digest.add(self._content, laid.content)
        self.samples_read += counts.inputs

    def checkpoint(self) -> None:
        """Makes everything appended so far durable. Raises LostShard when another attempt removed the folder."""
        self._sync_own_files()
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
                self._work = os.open(self._folder / WORK, flags, 0o666)
            except FileNotFoundError:
                raise LostShard(self.header.name) from None
        os.pwrite(self._work, work_note(None if left else self.samples_read), 0)

    def seal(self) -> str:
        """Completes the shard where it is, and returns the sha256 of its shard.json.

        Raises LostShard when the folder was taken away.
        """
        if self.samples_read != self.header.num_inputs or not self._counts.is_balanced():
            raise AssertionError(
                f"shard {self.header.name} has {self.samples_read} of {self.header.num_inputs} samples"
            )
        try:
            summary = self._seal(self._counts)
        except FileNotFoundError:
            raise LostShard(self.header.name) from None
        self._is_sealed = True
        return hashlib.sha256(summary.to_json()).hexdigest()

    def commit(self) -> bool:
        """Publishes the shard, sealed or not; False when another attempt did so first with the same bytes.

        Raises ShardConflict when it did so with other bytes, LostShard when the folder was taken away.
        """
        if not self._is_sealed:
            self.seal()
        return publish(self._shards, self._folder, self.header.name)

    def seal_partial(self) -> ShardSummary:
        """Seals what was read so far in place, the rest of the shard accounted for as missing; not published."""
        missing = self.header.num_inputs - self.samples_read
        return self._seal(self._counts + Counts(inputs=missing, missing=missing))

    def close(self) -> None:
        """Closes the files; what was neither checkpointed nor committed is lost."""
        self._behind.close()
        if self._work is not None:
            os.close(self._work)
            self._work = None
        for file in self._files.values():
            file.close()

    def start(self) -> None:
        """Makes the attempt's folder, empty. Raises LostShard when another attempt removes it meanwhile."""
        self._folder.mkdir()
        try:
            for name in self._schema.folders:
                (self._folder / name).mkdir()
            for path in self._paths():
                self._files[path] = AppendFile(self._folder / path)
            for name in self._schema.folders:  # a checkpoint syncs contents only: names are there once for all
                files.sync_folder(self._folder / name)
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
        if self._schema.has_files:
            self._adopt_own_files(old)
        self.samples_read = progress.samples_read
        self._sizes, self._counts = progress.sizes, progress.counts
        self._content = digest.from_hex(progress.content_digest)
        self.checkpoint()

    def _paths(self) -> list[str]:
        """The files that are appended to."""
        return [*self._schema.grown_paths, REJECTS]

    def _stream_bytes(self) -> dict[str, int]:
        return {stream.path: self._files[stream.path].size for stream in self._schema.streams}

    def _add_file(self, name: str, data: bytes | memoryview, sha256: str | None) -> None:
        path = f"{self._folder}/{FILES}/{name}"
        self._behind.add(path, data)
        self._unsynced.append(path)
        self._list_file(name, len(data), sha256 or hashlib.sha256(data).hexdigest())

    def _list_file(self, name: str, size: int, sha256: str) -> None:
        line = _as_json({"name": name, "size": size, "sha256": sha256})
        self._files[LISTING].append(files.to_bytes(f"{line}\n"))

    def _adopt_own_files(self, old: Path) -> None:
        """The files that the adopted listing vouches for: the same ones by a link, or a copy where there are none."""
        self._files[LISTING].flush()
        for item in read_listing(self._folder):
            path = self._folder / FILES / item.name
            files.link_file(old / FILES / item.name, path)
            if path.stat().st_size != item.size or digest.sha256_file(path) != item.sha256:
                raise ValueError(f"{old.name}/{FILES}/{item.name} is not what {LISTING} vouches for")

    def _sync_own_files(self) -> None:
        self._behind.wait()
        files.sync_files(self._unsynced)
        if self._unsynced:
            files.sync_folder(self._folder / FILES)
        self._unsynced.clear()

    def _seal(self, counts: Counts) -> ShardSummary:
        for stream in self._schema.streams:
            file = self._files[stream.path]
            file.append(stream.ending(file.size))
        for file in self._files.values():
            file.flush()
        known = {path: file.sha256() for path, file in self._files.items()}
        self._sync_own_files()
        self.close()
        return seal(self._folder, self.header, self._sizes, counts, digest.to_hex(self._content), known)

    def is_gone(self) -> bool:
        """Whether another attempt has removed the folder."""
        return not self._folder.exists()

    def discard(self) -> None:
        self.close()
        files.remove_folder(self._folder)


class RetryWriter(ShardWriter):
    """Writes a retry part: samples that were rejected, and in recovered.jsonl the rows that they take back.

    Its account corrects that of the shards: 0 inputs, n written, -n rejected. There are no checkpoints.
    """

    def __init__(self, shards: Path, header: ShardHeader, attempt: str) -> None:
        super().__init__(shards, header, attempt)
        self.reasons: Counter[str] = Counter()

    def take_back(self, batch: Made, rows: Sequence[RejectRow]) -> None:
        """rows: what the samples of the batch were rejected with, in the same order."""
        self.append(batch)
        number = retry_number(self.header.name)
        self._files[RECOVERED].append(b"".join(to_line(row, number) for row in rows))
        self.reasons.update(row.reason for row in rows)

    def seal(self) -> str:
        taken_back = Counter({reason: -number for reason, number in self.reasons.items()})
        summary = self._seal(dataclasses.replace(self._counts, inputs=0, rejected=taken_back))
        self._is_sealed = True
        return hashlib.sha256(summary.to_json()).hexdigest()

    def _paths(self) -> list[str]:
        return [*super()._paths(), RECOVERED]
