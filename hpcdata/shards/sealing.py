"""The end of a shard: complete files become a sealed folder, and one rename publishes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hpcdata.base import digest, files
from hpcdata.shards.counts import Counts
from hpcdata.shards.reject_ledger import REJECTS
from hpcdata.shards.schema import FILES, Schema, Sizes
from hpcdata.shards.shard import (
    PROGRESS,
    SHARD,
    WORK,
    ShardHeader,
    ShardSummary,
    forget_attempts,
    list_files,
    read_summary,
)


class LostShard(Exception):
    """Another attempt has taken this shard over: what this process still had in memory is not needed."""


class ShardConflict(Exception):
    """Another attempt committed other bytes for this shard than this process made."""

    def __init__(self, name: str, paths: list[str]) -> None:
        super().__init__(f"shard {name} was committed with other bytes by another process: {', '.join(paths)}")
        self.paths = paths


def seal(
    folder: Path, header: ShardHeader, sizes: Sizes, counts: Counts, content_digest: str, known: Mapping[str, str]
) -> ShardSummary:
    """Turns a folder of complete column files into a shard: drops empty files, adds meta.json files and shard.json.

    `known`: sha256 of the files that the caller has hashed while writing them.
    """
    _write_metas(folder, header.schema, sizes)
    (folder / WORK).unlink(missing_ok=True)
    if not (folder / REJECTS).stat().st_size:
        (folder / REJECTS).unlink()
    names = sorted(path for path in list_files(folder) - {PROGRESS, SHARD} if not path.startswith(f"{FILES}/"))
    if gone := {path for path in known if not _may_be_absent(path, header.schema, sizes)} - set(names):
        raise FileNotFoundError(f"{folder}: {', '.join(sorted(gone))} disappeared")
    for name in names:
        files.sync_file(folder / name)
    for name in header.schema.folders:
        files.sync_folder(folder / name)
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


def _may_be_absent(path: str, schema: Schema, sizes: Sizes) -> bool:
    """Whether a file is one of columns without rows, or of rejects."""
    tables = {column.path: column.table for column in schema.columns}
    return path not in schema.grown_paths or (path in tables and not sizes[tables[path]])


def _compare(ours: Path, theirs: Path) -> None:
    """Both are sealed: the same shard.json means the same bytes, as it has the sha256 of every file."""
    if (ours / SHARD).read_bytes() == (theirs / SHARD).read_bytes():
        return
    mine, other = read_summary(ours).files, read_summary(theirs).files
    paths = sorted(path for path in mine.keys() | other.keys() if mine.get(path) != other.get(path))
    files.remove_folder(ours)
    raise ShardConflict(theirs.name, paths or [SHARD])


def _write_metas(folder: Path, schema: Schema, rows: Sizes) -> None:
    """The meta.json files of tensordict's memory-mapped layout; tables without rows are left out with their files."""
    root: dict[str, object] = {}
    for table in schema.tables:
        meta: dict[str, object] = {}
        for column in schema.columns:
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
