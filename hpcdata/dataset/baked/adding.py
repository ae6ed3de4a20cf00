"""Writing baked rows into a dataset, in constant memory. What a layout makes of samples is given: see `Baking`.

They are written under a temporary name. Once they are durable they get their own, and then the manifest is replaced:
killed at any moment, the dataset is whole, with them or without them, and what was asked for is simply asked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from hpcdata.base import files
from hpcdata.base.errors import Unfinished
from hpcdata.dataset.baked.record import FACTS_FILE, FOLDER, ROWS, RUNS, Baked
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.manifest import FILE_NAME, Manifest, read_manifest
from hpcdata.shards.compact import HashedFile

log = logging.getLogger(__name__)


class Block(NamedTuple):
    """Rows of consecutive samples, as they are stored: see `hpcdata.dataset.baked`."""

    rows: np.ndarray
    facts: np.ndarray
    runs: np.ndarray


class Rows(Protocol):
    """A layout that is bound to a dataset."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def width(self) -> int: ...

    def blocks(self, dataset: TokenDataset) -> Iterator[Block]:
        """All samples in order. Raises UserError where one of them cannot be laid out so."""
        ...


class Baking(Protocol):
    """A layout as it was asked for."""

    @property
    def asked(self) -> str: ...

    def bind(self, manifest: Manifest) -> Rows:
        """Raises UserError where the dataset cannot be laid out so, or rows would not always be the same."""
        ...


def bake(manifest: Manifest, layouts: Sequence[Baking]) -> Manifest:
    """Makes these layouts those of the dataset: writes what it lacks, and removes what is not asked for any longer."""
    try:
        return _bake(manifest, layouts)
    except Exception:
        with contextlib.suppress(OSError):
            (manifest.folder / FOLDER).rmdir()  # if it is empty
        raise


def _bake(manifest: Manifest, layouts: Sequence[Baking]) -> Manifest:
    dataset = manifest.folder
    bound = {rows.digest: (baking.asked, rows) for baking in layouts for rows in [baking.bind(manifest)]}
    known = {baked.digest: baked for baked in manifest.baked}
    with contextlib.ExitStack() as undone_on_error:
        found = [
            known.get(digest) or _write(manifest, asked, rows, undone_on_error)
            for digest, (asked, rows) in bound.items()
        ]
    if tuple(found) != manifest.baked:
        extra = {name: value for name, value in manifest.extra.items() if name != "baked"}
        if found:
            extra["baked"] = [baked.to_mapping() for baked in found]
        _require_unchanged(manifest)
        manifest = dataclasses.replace(manifest, extra=extra)
        files.write_atomic(dataset / FILE_NAME, manifest.to_json())
    _remove_others(dataset, {baked.folder for baked in found})
    return manifest


def _remove_others(dataset: Path, kept: Set[str]) -> None:
    """What is not asked for any longer, and what killed attempts have left."""
    for path in sorted((dataset / FOLDER).iterdir()) if (dataset / FOLDER).is_dir() else ():
        if f"{FOLDER}/{path.name}" not in kept:
            files.remove_folder(path)
    if not kept:
        with contextlib.suppress(OSError):
            (dataset / FOLDER).rmdir()
    for path in dataset.glob(f".{FILE_NAME}.*.tmp"):
        path.unlink(missing_ok=True)


def _require_unchanged(manifest: Manifest) -> None:
    """Raises Unfinished where another process has replaced it: this one was stopped, and its claim taken over."""
    now = read_manifest(manifest.folder)
    if (now.content_digest, now.parts, now.extra) != (manifest.content_digest, manifest.parts, manifest.extra):
        raise Unfinished(f"another process has combined {manifest.folder} meanwhile: run this again")


def _write(manifest: Manifest, asked: str, rows: Rows, undone_on_error: contextlib.ExitStack) -> Baked:
    folder = f"{FOLDER}/{rows.name}-{rows.digest[:8]}"
    target = manifest.folder / folder
    log.info("baking %s into %s: %d rows of %d columns", asked, target, manifest.num_samples, rows.width)
    building = target.with_name(f".{target.name}.building")
    for left in (building, target):  # by killed attempts: the manifest does not have it
        files.remove_folder(left)
    undone_on_error.enter_context(files.removed_on_error(target))
    with files.removed_on_error(building):
        building.mkdir(parents=True)
        num_runs, sha256 = _write_blocks(building, rows.blocks(TokenDataset(manifest)))
        for name in sha256:
            files.sync_file(building / name)
        files.sync_folder(building)
        files.publish_folder(building, target)
    files.sync_folder(manifest.folder)
    return Baked(
        layout=asked,
        digest=rows.digest,
        folder=folder,
        dtype=rows.dtype,
        width=rows.width,
        samples=manifest.num_samples,
        runs=num_runs,
        sha256=sha256,
    )


def _write_blocks(folder: Path, blocks: Iterator[Block]) -> tuple[int, dict[str, str]]:
    """(number of runs, sha256 of each file)"""
    num_runs = 0
    with HashedFile(folder / ROWS) as rows, HashedFile(folder / FACTS_FILE) as facts, HashedFile(folder / RUNS) as runs:
        for block in blocks:
            num_runs += len(block.runs)
            for file, array in ((rows, block.rows), (facts, block.facts), (runs, block.runs)):
                with files.naming(folder):
                    file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return num_runs, {ROWS: rows.sha256(), FACTS_FILE: facts.sha256(), RUNS: runs.sha256()}
