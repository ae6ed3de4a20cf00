"""All sets of a folder: those of Parquet are converted by another command, those of JSON unpacked and relinked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.archives.parts import archives_in
from hpcdata.archives.unpacking import unpack_found
from hpcdata.base.errors import UserError
from hpcdata.formats.sets.finding import find_sets
from hpcdata.formats.sets.mapping import read_mapping
from hpcdata.formats.sets.relinking import IMAGES, MISSING, RelinkOptions, files_to_relink, json_in, relink

_PICTURES = "image"
"""Begins the names of archives that hold pictures: `images_part_0.tar.gz`, `image.zip`."""


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    source: Path
    target: Path
    """Absolute."""
    mapping: Path | None
    root_name: str | None
    """What paths of pictures start with; None: the name of the target."""
    only: Sequence[str]
    writes_incomplete: bool


def run(options: SetOptions, *, convert: Callable[[list[str]], int] | None, say: Callable[[str], None]) -> bool:
    """Whether all went well. Raises UserError.

    convert: is given the arguments of `hpcdata convert llava-parquet` for a set of Parquet, and returns its exit code.
    None: all sets are of JSON.
    """
    names = read_mapping(options.mapping) if options.mapping else {}
    if convert is None:
        asked = _asked(options, names, options.only)
        found = files_to_relink(asked)
        if not any(names for _, names in found):
            raise UserError(f"no set in {options.source} has JSON: for Parquet there is hpcdata convert sets")
        for folder in (folder for folder, names in found if not names):
            say(f"{folder.name}: no JSON in it")
        return _relinked(asked, say)
    sets = find_sets(options.source, options.only, options.mapping, without=options.target)
    asked = _asked(options, {name: names[name] for name in sets.of_json if name in names}, sets.of_json)
    if sets.of_json:
        files_to_relink(asked)  # what is wrong with one is said before hours of others
    for folder in (options.source, *(item.folder for item in sets.of_tables)):
        for name in json_in(folder):
            say(f"{folder / name} is of no set of JSON: not read")
    is_well, root = True, options.root_name or options.target.name
    for item in sets.of_tables:
        name = item.folder.name
        say(f"{name}: Parquet")
        line = [str(item.folder), str(options.target / name), "--name", item.json_name]
        is_well &= convert([*line, f"convert.image_prefix={root}/{name}/image/"]) == 0
    for name in sets.of_json:
        is_well &= _unpacked(options.source / name, options.target / name / IMAGES, say)
    return (not sets.of_json or _relinked(asked, say)) and is_well


def _asked(options: SetOptions, names: dict[str, str], only: Sequence[str]) -> RelinkOptions:
    return RelinkOptions(
        source=options.source,
        target=options.target,
        mapping=names,
        root_name=options.root_name,
        only=only,
        writes_incomplete=options.writes_incomplete,
    )


def _unpacked(folder: Path, out: Path, say: Callable[[str], None]) -> bool:
    """The archives of pictures of a set. Whether all went well."""
    archives = [item for item in archives_in(folder) if item.label.startswith(_PICTURES)]
    made = unpack_found(archives, out, renews=True) if archives else []
    for item in made:
        say(f"{folder.name}/{item.describe()}")
    return all(item.is_good for item in made)


def _relinked(asked: RelinkOptions, say: Callable[[str], None]) -> bool:
    num_missing = 0
    for item in relink(asked):
        num_missing += item.missing.total()
        say(item.describe())
    if num_missing:
        say(f"{num_missing} pictures are missing, see {asked.target / MISSING}")
        say(f"they belong in {asked.target}/SET/{IMAGES}; convert sets unpacks {_PICTURES}*.tar.gz of the sets there")
    return not num_missing
