"""Tars as Megatron Energon reads them (7.x): the files beside them, as its own `energon prepare` writes them.

    00003-of-00064.tar          samples, with names that come once in all tars
    00003-of-00064.tar.idx      u64, little-endian: where each sample begins, and where the last one ends
    .nv-meta/.info.json         how many samples each tar has
    .nv-meta/split.yaml         which tars are for training, validation, testing
    .nv-meta/dataset.yaml       what becomes of a sample
    .nv-meta/index.sqlite       where each sample and each member lies, by name: for sets of several parts
    .nv-meta/index.uuid         names that index, for caches

The formats are in the documentation of Energon ("Dataset format on disk").
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from hpcdata.formats.records.sample_types import SampleType
from hpcdata.formats.records.splits import Split
from hpcdata.formats.records.tar_members import TarSample

META = ".nv-meta"
_SPLITS = ("train", "val", "test")
_TABLES = (
    "CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, "
    "sample_index INTEGER NOT NULL, byte_offset INTEGER, byte_size INTEGER)",
    "CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, "
    "content_byte_offset INTEGER, content_byte_size INTEGER)",
)
_INDICES = (
    "CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index)",
    "CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset)",
    "CREATE INDEX idx_sample_parts_full ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, "
    "content_byte_size)",
)


def index_bytes(bounds: np.ndarray) -> bytes:
    """The content of `NAME.tar.idx`. bounds: where each sample begins, and where the last ends."""
    return bounds.astype("<u8").tobytes()


def info_json(counts: Mapping[str, int]) -> bytes:
    """counts: name of a tar -> its samples, none without any; in the order in which the index numbers them."""
    return json.dumps({"energon_version": None, "shard_counts": dict(counts)}, indent=2).encode()


def split_yaml(split: Split) -> bytes:
    """split: names of tars. A split that has none is there, and empty."""
    lines = ["split_parts:"]
    for name in dict.fromkeys((*_SPLITS, *split)):
        tars = split.get(name, [])
        lines += [f"  {name}:", *(f"  - {tar}" for tar in tars)] if tars else [f"  {name}: []"]
    return "\n".join([*lines, "exclude: []", ""]).encode()


def dataset_yaml(sample_type: SampleType) -> bytes:
    return sample_type.to_yaml().encode()


def index_uuid(content_digest: str) -> bytes:
    """The same for the same samples."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"hpcdata {content_digest}")).encode()


def write_index(path: Path, tars: Iterable[Iterator[TarSample]]) -> None:
    """Writes `index.sqlite`, without a trace of when. tars: the samples of each, in the order of `.info.json`."""
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        for table in _TABLES:
            database.execute(table)
        database.execute("BEGIN")
        for number, samples in enumerate(tars):
            for sample in samples:
                row = (number, sample.key, sample.row, sample.start, sample.end - sample.start)
                database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
                places = [(number, sample.row, item.extension, item.offset, item.size) for item in sample.members]
                database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", places)
        for index in _INDICES:
            database.execute(index)
        database.execute("COMMIT")
    database.close()
