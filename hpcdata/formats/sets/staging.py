"""The stages of LLaVA-OneVision as mixes: which file of which set, and which part of it, as its makers have published.

    stages/2-1.yaml     the files by set and part, and those that are named and were never published
    write_mix("2-1", Path("/llava/stage2-1.yaml"))     a mix of the files that lie below /llava

Files are found by their names, wherever below the folder they lie. What is not published is named in the mix, and left
out; what is published and not there is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import yaml

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, walk
from hpcdata.sources.base import refusing_faults

NAMES = ("1", "1.5", "2-1", "2-2")
_NOT_LOOKED_INTO = ("image", "images", "videos")


@dataclass(frozen=True, kw_only=True)
class Item:
    set_name: str
    """Folder of the set, as `hpcdata download` names it; empty for what is not published."""
    file: str
    take: str


@dataclass(frozen=True, kw_only=True)
class Written:
    found: list[tuple[Item, str]]
    """With the path from the folder of the mix."""
    missing: list[Item]
    not_published: list[Item]
    is_written: bool


def items(stage: str) -> list[Item]:
    """Of a stage, in the order of its sets. Raises UserError."""
    if stage not in NAMES:
        raise UserError(f"there is no stage {stage}: expected one of {', '.join(NAMES)}")
    values = yaml.safe_load((package_files(__package__) / "stages" / f"{stage}.yaml").read_text("utf-8"))
    named = [*values["sets"].items(), ("", values.get("not_published", {}))]
    return [item for set_name, parts in named for item in _items_of(set_name, parts)]


def _items_of(set_name: str, parts: Mapping[str, list[str]]) -> list[Item]:
    return [Item(set_name=set_name, file=name, take=take) for take, names in parts.items() for name in names]


def write_mix(stage: str, out: Path, *, writes_incomplete: bool = False) -> Written:
    """A mix of the files of a stage that lie below its folder. Raises UserError for one that lies there twice."""
    wanted, there = items(stage), _json_below(out.parent)
    published = [item for item in wanted if item.set_name]
    for item in published:
        if len(there.get(item.file, ())) > 1:
            places = " and ".join(there[item.file])
            raise UserError(f"{item.file} lies in {out.parent} twice, as {places}: remove one")
    found = [(item, there[item.file][0]) for item in published if item.file in there]
    missing = [item for item in published if item.file not in there]
    not_published = [item for item in wanted if not item.set_name]
    is_written = bool(found) and (not missing or writes_incomplete)
    if is_written:
        files.write_atomic(out, _mix(stage, found, missing, not_published).encode())
    return Written(found=found, missing=missing, not_published=not_published, is_written=is_written)


def _mix(stage: str, found: list[tuple[Item, str]], missing: list[Item], not_published: list[Item]) -> str:
    entries: list[dict[str, Any]] = [{"json_path": path, "sampling_strategy": item.take} for item, path in found]
    notes = [
        f"# Stage {stage} of LLaVA-OneVision: {len(found)} of {len(found) + len(missing)} published files.",
        *(f"# not published: {item.file} ({item.take})" for item in not_published),
        *(f"# missing: {item.set_name}: {item.file} ({item.take})" for item in missing),
    ]
    return "\n".join(notes) + "\n" + yaml.safe_dump({"datasets": entries}, allow_unicode=True, sort_keys=False)


def _json_below(folder: Path) -> dict[str, list[str]]:
    """File name -> paths below the folder; runs and folders of pictures are not looked into."""
    found: dict[str, list[str]] = {}
    with refusing_faults(str(folder)):
        if kind_of(str(folder)) != "folder":
            raise UserError(f"{folder} is no folder")
        for directory, folders, names in walk(folder):
            folders[:] = sorted(name for name in folders if _is_looked_into(name))
            for name in names:
                if name.endswith((".json", ".jsonl")):
                    found.setdefault(name, []).append(os.path.relpath(os.path.join(directory, name), folder))
    return found


def _is_looked_into(name: str) -> bool:
    return name[0] != "." and not name.endswith(".run") and name not in _NOT_LOOKED_INTO
