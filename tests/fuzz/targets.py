"""What is fuzzed: every parser of files that hpcdata reads, as `bytes -> None`.

A target returns for every input, or raises `UserError` or what the parser documents; anything else is a finding.
Sources are also read in two slices, which must give the records of one: positions may not depend on where it starts.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import parse_manifest
from hpcdata.history.ledger import read_ledgers
from hpcdata.runs.claims import _read_owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan
from hpcdata.samples import Record
from hpcdata.shards import shard
from hpcdata.shards.recovered import read_recovered
from hpcdata.shards.reject_ledger import read_rejects
from hpcdata.sources import InputFile, Options
from hpcdata.sources.tar.wids import is_index, read_index

_folders: list[tempfile.TemporaryDirectory[str]] = []
OPTIONS = Options(max_record_bytes=4096)


def folder() -> Path:
    """For the files of this process, removed when it ends."""
    if not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="hpcdata-fuzz-"))
    return Path(_folders[0].name)


def source(name: str, format_name: str, *, roots: bool = False) -> Callable[[bytes], None]:
    """roots: by the rules of new plans, which look for media in records."""

    def target(data: bytes) -> None:
        path = folder() / name
        path.write_bytes(data)
        file = InputFile(path=str(path), label=name, format=format_name, base=str(folder()))
        file = dataclasses.replace(file, roots=(str(folder()),) if roots else ())
        try:
            file = sources.prepare(file, folder() / "prepared")
            scan = sources.scan(file, every=2, options=OPTIONS)
            whole = read(file, scan, 0, scan.num_samples)
        except UserError:
            return
        assert len(whole) == scan.num_samples
        half = scan.num_samples // 2
        assert read(file, scan, 0, half) + read(file, scan, half, scan.num_samples - half) == whole

    return target


def read(file: InputFile, scan: sources.Scan, first: int, count: int) -> list[Record]:
    return list(sources.read(file, scan, first=first, count=count, options=OPTIONS))


def plan(data: bytes) -> None:
    (folder() / "plan.json").write_bytes(data)
    try:
        found = load_plan(folder())
    except UserError:
        return
    for spec in found.shards():
        found.header(spec)


def progress(data: bytes) -> None:
    (folder() / shard.PROGRESS).write_bytes(data)
    found = shard.read_progress(folder())
    if found is not None:
        found.to_json()
        found.counts.is_balanced()


def summary(data: bytes) -> None:
    shard_folder = folder() / "00000-of-00001"
    shard_folder.mkdir(exist_ok=True)
    (shard_folder / shard.SHARD).write_bytes(data)
    try:
        found = shard.read_summary(shard_folder)
    except ValueError:  # as documented
        return
    found.to_json()
    shard.check_sizes(shard_folder, found)


def manifest(data: bytes) -> None:
    try:
        parse_manifest(data).to_json()
    except UserError:
        return


def wids(data: bytes) -> None:
    path = folder() / "index.json"
    path.write_bytes(data)
    is_index(str(path))
    try:
        read_index(str(path))
    except UserError:
        return


def rejects(data: bytes) -> None:
    part = folder() / "rejects"
    part.mkdir(exist_ok=True)
    for name in ("rejects.jsonl", "recovered.jsonl"):
        (part / name).write_bytes(data)
    try:
        list(read_rejects(part))
        read_recovered([part])
    except UserError:
        return


def records_of_a_run(data: bytes) -> None:
    """The small ones: combined.json, a claim, a ledger."""
    run = folder() / "run"
    (run / "ledger").mkdir(parents=True, exist_ok=True)
    for name in ("combined.json", "claim", "ledger/a.jsonl"):
        (run / name).write_bytes(data)
    _read_owner(run / "claim")
    list(read_ledgers(run / "ledger"))
    try:
        RunPaths(run).complete_dataset()
    except UserError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tar": source("a.tar", "tar"),
    "tar_gz": source("a.tar.gz", "tar.gz"),
    "jsonl": source("a.jsonl", "jsonl"),
    "media": source("a.jsonl", "jsonl", roots=True),
    "tables": source("a.parquet", "parquet.records", roots=True),
    "csv": source("metadata.csv", "csv", roots=True),
    "jsonl_gz": source("a.jsonl.gz", "jsonl.gz"),
    "text_zst": source("a.jsonl.zst", "text.zst"),
    "array": source("a.json", "array"),
    "listing": source("listing.jsonl", "listing"),
    "document": source("a.txt", "document"),
    "parquet": source("a.parquet", "parquet"),
    "plan": plan,
    "progress": progress,
    "shard": summary,
    "manifest": manifest,
    "wids": wids,
    "rejects": rejects,
    "records": records_of_a_run,
}
