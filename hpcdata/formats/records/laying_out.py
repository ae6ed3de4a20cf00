"""Copied records laid out for another system: which files a target of each format has.

    webdataset    NAME.tar ... and shardindex.json for wids
    energon       NAME.tar, NAME.tar.idx ... and .nv-meta/
    llava         llava.json (or .jsonl), images/NAME/...: paths of pictures are relative to the folder
    jsonl         NAME/NAME.jsonl, NAME/files/...
    hf            what datasets.load_from_disk opens; of several splits, a folder each

NAME is that of a shard, `00003-of-00064`. Tars, lines and pictures are hard links where their bytes do not change.
What a format cannot hold is listed in `left_out.jsonl`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcdata.base import files
from hpcdata.base.command import to_type
from hpcdata.base.errors import Failed, UserError
from hpcdata.formats import arrow
from hpcdata.formats.arranging import Building, arrange
from hpcdata.formats.records import energon
from hpcdata.formats.records.copied import Copied, CopiedPart
from hpcdata.formats.records.llava import llava_record
from hpcdata.formats.records.options import OPTIONS, RecordOptions
from hpcdata.formats.records.sample_types import Profile, given_type
from hpcdata.formats.records.splits import parse_ratios, split_shards
from hpcdata.formats.records.tar_keys import key_hashes, new_names, write_renamed
from hpcdata.formats.records.tar_members import TarSample, open_tar
from hpcdata.formats.target import Source, Target
from hpcdata.samples import BadSample
from hpcdata.shards.appending import AppendFile
from hpcdata.sources import records
from hpcdata.sources.wids import KIND

Facts = Mapping[str, Any]
LEFT_OUT = "left_out.jsonl"


_FORMS = {"webdataset": "tar", "energon": "tar", "llava": "jsonl", "jsonl": "jsonl", "hf": "arrow"}
_COPIES = {"tar": "webdataset", "jsonl": "jsonl", "arrow": "hf"}
_WORDS = {"tar": "tars", "jsonl": "JSON lines", "arrow": "Arrow streams"}


def export_records(dataset: str | Path, out: str | Path, name: str, options: RecordOptions | None = None) -> Target:
    """Lays a dataset of copied records out in `out`, or finds it there. Raises UserError."""
    options = options or RecordOptions()
    copies = Copied(dataset)
    _require_form(copies, dataset, name)
    _check(name, options)
    target = Target(
        format=name,
        options={item: getattr(options, item) for item in OPTIONS[name]},
        source=Source.of(copies.manifest),
        counts=copies.manifest.counts,
    )
    try:
        return arrange(Path(out), target, lambda building: _FILLS[name](building, copies, options))
    except UserError:
        raise
    except ValueError as error:
        raise Failed(f"{dataset} is damaged: {error}") from None


def _require_form(copies: Copied, dataset: str | Path, name: str) -> None:
    """Raises UserError."""
    if not copies.parts:
        raise UserError(f"{dataset} holds no record: there is nothing to export")
    if copies.form == _FORMS[name]:
        return
    held, fits = (_WORDS[form] for form in (copies.form, _FORMS[name]))
    pattern = str(copies.manifest.folder / f"parts/*/records/*.{copies.form}")
    line = to_type("launch", "stage=copy", f"copy.format={_COPIES[_FORMS[name]]}", f"data.raw_data_dir={pattern}")
    raise UserError(
        f"{dataset} holds {held}, and {name} is made of {fits}: copy the records into those with\n"
        f"{line} data.token_output_dir=FOLDER\nand export that"
    )


def _check(name: str, options: RecordOptions) -> None:
    """Raises UserError before anything is written."""
    if "split" in OPTIONS[name]:
        parse_ratios(options.split)
    if name == "energon":
        if options.sample_type == "auto" and options.field_map:
            raise UserError("--field-map belongs to a --sample-type")
        if options.sample_type != "auto":
            given_type(options.sample_type, options.field_map)


def _webdataset(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    names = _new_names(copies) if options.keys == "unique" else {}
    entries = []
    for part in copies.parts:
        _add_tar(building, part, names.get(part.name))
        size = (building.folder / f"{part.name}.tar").stat().st_size
        entries.append({"url": f"{part.name}.tar", "nsamples": len(part), "filesize": size})
    index = {"__kind__": KIND, "wids_version": 1, "shardlist": entries, "name": f"copied-{_short(copies)}"}
    building.write("shardindex.json", json.dumps(index, indent=2).encode())
    return {"renamed": _num_renamed(names)}


def _energon(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    names, profile = _new_names(copies), Profile()
    counts = {f"{part.name}.tar": len(part) for part in copies.parts}
    split = split_shards(counts, parse_ratios(options.split), options.split_seed)
    places = {}
    for part in copies.parts:
        bounds = places[part.name] = _add_tar(building, part, names.get(part.name))
        building.write(f"{part.name}.tar.idx", energon.index_bytes(bounds))
    samples = (_profiled(part, building.folder, places[part.name], profile) for part in copies.parts)
    meta = f"{energon.META}/"
    if options.sample_index:
        path = building.folder / f"{meta}building"
        path.parent.mkdir()
        energon.write_index(path, samples)
        with building.open(f"{meta}index.sqlite") as file:
            file.append_prefix(path, path.stat().st_size)
        path.unlink()
        building.write(f"{meta}index.uuid", energon.index_uuid(copies.manifest.content_digest))
    else:
        for one in samples:
            for _ in one:
                pass
    is_told = options.sample_type == "auto"
    sample_type = profile.sample_type() if is_told else given_type(options.sample_type, options.field_map)
    building.write(f"{meta}.info.json", energon.info_json(counts))
    building.write(f"{meta}split.yaml", energon.split_yaml(split))
    building.write(f"{meta}dataset.yaml", energon.dataset_yaml(sample_type))
    return {
        "renamed": _num_renamed(names),
        "sample_type": dataclasses.asdict(sample_type),
        "split": {name: sum(counts[tar] for tar in tars) for name, tars in split.items()},
    }


def _profiled(part: CopiedPart, folder: Path, bounds: np.ndarray, profile: Profile) -> Iterator[TarSample]:
    with open_tar(part, folder / f"{part.name}.tar", bounds) as tar:
        for sample in tar:
            profile.add(tar, sample)
            yield sample


def _new_names(copies: Copied) -> dict[str, dict[int, str]]:
    return new_names(copies.parts, [key_hashes(part) for part in copies.parts])


def _num_renamed(names: Mapping[str, Mapping[int, str]]) -> int:
    return sum(map(len, names.values()))


def _add_tar(building: Building, part: CopiedPart, names: Mapping[int, str] | None) -> np.ndarray:
    """Returns where the samples of the tar begin, and where the last one ends."""
    if not names:
        building.link(part.stream, f"{part.name}.tar", part.stream_sha256)
        return part.bounds
    with building.open(f"{part.name}.tar") as file:
        return write_renamed(part, names, file)


def _jsonl(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    for part in copies.parts:
        building.link(part.stream, f"{part.name}/{part.stream.name}", part.stream_sha256)
        for item in part.files():
            building.link(part.file(item.name), f"{part.name}/files/{item.name}", item.sha256)
    return {}


def _llava(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    left_out, number = Counter[str](), 0
    with building.open(LEFT_OUT) as noted, building.open(f"llava.json{'l' * options.lines}") as out:
        for part in copies.parts:
            wanted = set[str]()
            for row, line in enumerate(part.samples()):
                key = part.key(row)
                try:
                    record = _llava_record(line, key, part.name, wanted, options)
                except BadSample as bad:
                    left_out[bad.reason] += 1
                    noted.append(_line({"key": key, "reason": bad.reason, "message": bad.message}))
                    continue
                _append(out, record, number, as_lines=options.lines)
                number += 1
            for item in part.files():
                if item.name in wanted:
                    building.link(part.file(item.name), f"images/{part.name}/{item.name}", item.sha256)
        out.append(b"" if options.lines else b"\n]\n" if number else b"[]\n")
    return {"records": number, "left_out": dict(left_out)}


def _llava_record(line: bytes, key: str, folder: str, wanted: set[str], options: RecordOptions) -> dict[str, Any]:
    """wanted: gets the names of its files."""
    record = records.load(line)
    assert isinstance(record, dict)
    found = record.pop("image", None)
    names = [] if found is None else found if isinstance(found, list) else [found]
    others = record.pop("files", {})
    pictures = [_moved(name, folder) for name in names]
    made = llava_record(record, key, pictures, prompt=options.prompt, placeholders=options.placeholders)
    wanted.update(Path(name).name for name in (*names, *others.values()))
    return {**made, "files": {name: _moved(path, folder) for name, path in others.items()}} if others else made


def _moved(name: str, folder: str) -> str:
    return f"images/{folder}/{Path(name).name}"


def _append(out: AppendFile, record: dict[str, Any], number: int, *, as_lines: bool) -> None:
    line = _line(record)
    out.append(line if as_lines else (b",\n" if number else b"[\n") + line.removesuffix(b"\n"))


class _Stream(NamedTuple):
    path: Path
    sha256: str


def _features(path: Path) -> dict[str, Any]:
    """The columns of an Arrow stream, as `datasets` spell them."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        found: dict[str, Any] = json.loads(stream.schema.metadata[b"huggingface"])["info"]["features"]
    return found


def _hf(building: Building, copies: Copied, options: RecordOptions) -> Facts:
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


def _line(values: Mapping[str, Any]) -> bytes:
    return files.to_bytes(json.dumps(values, ensure_ascii=False) + "\n")


def _short(copies: Copied) -> str:
    return copies.manifest.fingerprint[:8]


_FILLS: dict[str, Callable[[Building, Copied, RecordOptions], Facts]] = {
    "webdataset": _webdataset,
    "energon": _energon,
    "llava": _llava,
    "jsonl": _jsonl,
    "hf": _hf,
}
