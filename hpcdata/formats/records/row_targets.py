"""Targets of rows: a folder of Hugging Face's datasets, or one for each split; and which columns hold records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcdata.formats import arrow
from hpcdata.formats.arranging import Building
from hpcdata.formats.records.copied import Copied, CopiedPart
from hpcdata.formats.records.options import RecordOptions
from hpcdata.formats.records.sample_types import Profile
from hpcdata.formats.records.splits import parse_ratios, split_shards
from hpcdata.formats.records.tar_members import open_tar
from hpcdata.sources import parsing
from hpcdata.sources.pictures.fields import TALKS

Facts = Mapping[str, Any]


def columns_for(copies: Copied, options: RecordOptions) -> str:
    """What columns hold the records: `pairs` if all of them fit."""
    if options.rows != "auto":
        return options.rows
    holds = _has_pairs_in_tars if copies.form == "tar" else _has_pairs_in_lines
    return "pairs" if all(map(holds, copies.parts)) else "records"


def _has_pairs_in_tars(part: CopiedPart) -> bool:
    profile = Profile()
    with open_tar(part) as tar:
        for sample in tar:
            profile.add(tar, sample)
    return profile.are_pairs()


def _has_pairs_in_lines(part: CopiedPart) -> bool:
    for line in part.samples():
        record = parsing.load(line)
        if not isinstance(record, dict) or isinstance(record.get("image"), list) or record.get("files"):
            return False
        if any(record.get(name) is not None for name in TALKS):
            return False
    return True


class _Stream(NamedTuple):
    path: Path
    sha256: str


def _features(path: Path) -> dict[str, Any]:
    """The columns of an Arrow stream, as `datasets` spell them."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        found: dict[str, Any] = json.loads(stream.schema.metadata[b"huggingface"])["info"]["features"]
    return found


def hf(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    shares = parse_ratios(options.split)
    counts = {part.name: len(part) for part in copies.parts}
    split = split_shards(counts, shares, options.split_seed)
    features = _features(copies.parts[0].stream)
    for name, shards in split.items():
        held = [_Stream(part.stream, part.stream_sha256) for part in copies.parts if part.name in set(shards)]
        below, fingerprint = ("", "") if len(split) == 1 else (f"{name}/", name)
        digest = hashlib.sha256(f"{copies.manifest.content_digest} {fingerprint}".encode()).hexdigest()
        arrow.write_folder(building, features, held, fingerprint=digest, below=below)
    if len(split) > 1:
        building.write("dataset_dict.json", json.dumps({"splits": list(split)}).encode())
    return {"split": {name: sum(counts[shard] for shard in shards) for name, shards in split.items()}}
