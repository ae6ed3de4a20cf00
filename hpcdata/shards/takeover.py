"""Continuing a shard from the fullest checkpoint of earlier attempts, which go when the new one is durable.

What another attempt has sealed is published as it is. A checkpoint is given up only when its bytes are not what it
vouches for; one that the disk does not let us read now, or whose owner turns out to be alive and ahead, is left alone.
A full disk ends the attempt before anything is removed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from pathlib import Path

from hpcdata.base import files
from hpcdata.shards.sealing import LostShard, publish
from hpcdata.shards.shard import (
    PROGRESS,
    SHARD,
    ShardHeader,
    check_files,
    list_attempts,
    note_attempt,
    read_summary,
    remove_attempt,
    valid_progress,
)
from hpcdata.shards.writing import ShardWriter

log = logging.getLogger(__name__)


def open_shard(shards: Path, header: ShardHeader, attempt: str, *, can_repeat: bool = True) -> ShardWriter | None:
    """A writer that continues from the fullest valid checkpoint; None when the shard is committed (now).

    Raises LostShard when another attempt takes the checkpoint over at the same time, OSError when the disk is full,
    or when a checkpoint cannot be read whose samples cannot be made again (`can_repeat=False`).
    """
    old_folders = list_attempts(shards, header.name)  # before ours is made: two attempts cannot remove each other's
    unread = set[Path]()
    for old in old_folders:
        try:
            if _finish(shards, old, header):
                return None
            with contextlib.suppress(FileNotFoundError):
                (old / PROGRESS).read_bytes()
        except OSError as error:
            log.warning("shard %s: %s cannot be read: %s", header.name, old.name, error)
            if not can_repeat:
                raise
            unread.add(old)
    note_attempt(shards, header.name, f"tmp_{header.name}.{attempt}")
    writer = _adopt_fullest(shards, header, attempt, old_folders, unread, can_repeat=can_repeat)
    if writer is None:
        writer = ShardWriter(shards, header, attempt)
        writer.start()
        writer.checkpoint()
    for old in old_folders:
        if old not in unread and not _is_ahead(old, writer):
            remove_attempt(shards, header.name, old.name)
    return writer


def _finish(shards: Path, old: Path, header: ShardHeader) -> bool:
    """Publishes a folder that was sealed but not renamed before its process died."""
    try:
        summary = read_summary(old)
        if summary.header != header or check_files(old, summary):
            log.warning("shard %s: %s is complete but damaged or of another run: ignored", header.name, old.name)
            return False
        (old / PROGRESS).unlink(missing_ok=True)
        files.sync_folder(old)
    except FileNotFoundError:  # not sealed; or its process lives, and has published it now
        return not old.exists() and (shards / header.name / SHARD).exists()
    except ValueError:
        return False
    publish(shards, old, header.name)
    return True


def _adopt_fullest(
    shards: Path, header: ShardHeader, attempt: str, old_folders: list[Path], unread: set[Path], *, can_repeat: bool
) -> ShardWriter | None:
    """A writer with the most that one of the folders vouches for. Removes damaged ones, adds others to `unread`."""
    found = [(progress, old) for old in old_folders if (progress := valid_progress(old, header))]
    for progress, old in sorted(found, key=lambda pair: -pair[0].samples_read):
        writer = ShardWriter(shards, header, attempt)
        try:
            writer.adopt(old, progress)
            return writer
        except (ValueError, KeyError, OSError) as error:
            writer.discard()
            if isinstance(error, OSError) and error.errno in files.NO_ROOM:
                raise
            if not old.exists():
                raise LostShard(header.name) from None
            if not isinstance(error, OSError) or error.errno == errno.ENOENT:
                log.warning("shard %s: checkpoint %s is damaged: %s", header.name, old.name, error)
                remove_attempt(shards, header.name, old.name)
            elif can_repeat:
                log.warning("shard %s: checkpoint %s cannot be read: %s", header.name, old.name, error)
                unread.add(old)
            else:
                raise
    return None


def _is_ahead(old: Path, writer: ShardWriter) -> bool:
    """Whether the owner of a checkpoint has gone on since we have read it."""
    progress = valid_progress(old, writer.header)
    return progress is not None and progress.samples_read > writer.samples_read
