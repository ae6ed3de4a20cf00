"""Targets of tars: webdataset and energon."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.formats.arranging import Building
from hpcdata.formats.records import energon as files_of_energon
from hpcdata.formats.records.copied import Copied, CopiedPart
from hpcdata.formats.records.options import RecordOptions
from hpcdata.formats.records.sample_types import Profile, given_type
from hpcdata.formats.records.splits import parse_ratios, split_shards
from hpcdata.formats.records.tar_keys import Renames, key_hashes, write_renamed
from hpcdata.formats.records.tar_members import TarSample, open_tar
from hpcdata.sources.tar.wids import KIND

Facts = Mapping[str, Any]


def webdataset(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    names = _renames(copies) if options.keys == "unique" else Renames([], [])
    entries = []
    for part in copies.parts:
        _add_tar(building, part, names.of(part))
        size = (building.folder / f"{part.name}.tar").stat().st_size
        entries.append({"url": f"{part.name}.tar", "nsamples": len(part), "filesize": size})
    index = {"__kind__": KIND, "wids_version": 1, "shardlist": entries, "name": f"copied-{_short(copies)}"}
    building.write("shardindex.json", json.dumps(index, indent=2).encode())
    return {"renamed": len(names)}


def energon(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    names, profile = _renames(copies), Profile()
    counts = {f"{part.name}.tar": len(part) for part in copies.parts}
    split = split_shards(counts, parse_ratios(options.split), options.split_seed)
    places = {}
    for part in copies.parts:
        bounds = places[part.name] = _add_tar(building, part, names.of(part))
        building.write(f"{part.name}.tar.idx", files_of_energon.index_bytes(bounds))
    samples = (_profiled(part, building.folder, places[part.name], profile) for part in copies.parts)
    meta = f"{files_of_energon.META}/"
    if options.sample_index:
        path = building.folder / f"{meta}building"
        path.parent.mkdir()
        files_of_energon.write_index(path, samples)
        with building.open(f"{meta}index.sqlite") as file:
            file.append_prefix(path, path.stat().st_size)
        path.unlink()
        building.write(f"{meta}index.uuid", files_of_energon.index_uuid(copies.manifest.content_digest))
    else:
        for one in samples:
            for _ in one:
                pass
    is_told = options.sample_type == "auto"
    sample_type = profile.sample_type() if is_told else given_type(options.sample_type, options.field_map)
    building.write(f"{meta}.info.json", files_of_energon.info_json(counts))
    building.write(f"{meta}split.yaml", files_of_energon.split_yaml(split))
    building.write(f"{meta}dataset.yaml", files_of_energon.dataset_yaml(sample_type))
    return {
        "renamed": len(names),
        "sample_type": dataclasses.asdict(sample_type),
        "split": {name: sum(counts[tar] for tar in tars) for name, tars in split.items()},
    }


def _profiled(part: CopiedPart, folder: Path, bounds: np.ndarray, profile: Profile) -> Iterator[TarSample]:
    with open_tar(part, folder / f"{part.name}.tar", bounds) as tar:
        for sample in tar:
            profile.add(tar, sample)
            yield sample


def _renames(copies: Copied) -> Renames:
    return Renames(copies.parts, [key_hashes(part) for part in copies.parts])


def _add_tar(building: Building, part: CopiedPart, names: Mapping[int, str]) -> np.ndarray:
    """Returns where the samples of the tar begin, and where the last one ends."""
    if not names:
        building.link(part.stream, f"{part.name}.tar", part.stream_sha256)
        return part.bounds
    with building.open(f"{part.name}.tar") as file:
        return write_renamed(part, names, file)


def _short(copies: Copied) -> str:
    return copies.manifest.content_digest[:8]
