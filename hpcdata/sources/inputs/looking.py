"""What lies at a path: the files to read, in order, each with its format.

`auto` goes by names, and by content where a name lies about compression: tars, JSON lines and arrays, Parquet, text.
A folder holds, in this order, a wids index, tars, JSON lines or Parquet, pictures, text files. JSON whose beginning
mentions images, conversations or captions is read as samples (`jsonl`), other JSON as documents (`text`).
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, read_beginning
from hpcdata.media.kinds import IMAGE_EXTENSIONS, says_nothing
from hpcdata.sources.account import describe_not_read, find_account
from hpcdata.sources.base import OLDER_EXTENSIONS, RECORDS, refusing_faults
from hpcdata.sources.custom import tables
from hpcdata.sources.documents import ENDINGS, MANY
from hpcdata.sources.folder import NOTES, is_picture, walk
from hpcdata.sources.inputs.formats import (
    ARROW,
    JSON_LINES,
    TABLES,
    TARS,
    format_of_content,
    is_tar,
    json_format,
    table_format,
    tar_format,
)
from hpcdata.sources.mixes import entries
from hpcdata.sources.pictures.metadata import NAME, is_metadata
from hpcdata.sources.sets.settings import SOURCES as SETS
from hpcdata.sources.streams import PARQUET, codec_of
from hpcdata.sources.tar import wids
from hpcdata.sources.url_lists.listing import tables_in
from hpcdata.sources.url_lists.rows import is_table

logger = logging.getLogger(__name__)

MIX = "llava_mix"
"""The source of a list of files; `auto` knows one as well."""
_IMAGES = ("",)
_MOST_OPENED = 100
_HEAD_BYTES = 4096
_OF_ANY_FIELDS = (*JSON_LINES, ".json", ".parquet", *tables.ENDINGS)
_KNOWN = (*TARS, *JSON_LINES, *ENDINGS, ".json", ".parquet")


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    path: str
    format: str
    num_declared: int | None = None
    take: str = ""
    take_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is looked for, and where not."""

    source: str
    without: str
    as_older: bool
    listed: Collection[str] | None
    seed: int = 0
    mapping: str = ""

    def found(self, path: str) -> list[FoundFile]:
        source = self.source
        with refusing_faults(path):
            kind = kind_of(path)
        if source == "dataset":
            return [FoundFile(path=os.path.join(path, "manifest.json") if kind == "folder" else path, format="dataset")]
        if kind == "folder" and source != MIX:
            return self._in_folder(path)
        name = os.path.basename(path).lower()
        if source == MIX and kind == "folder":
            raise UserError(f"{path} is a folder: data.source={MIX} reads a YAML file that lists files")
        if self.mapping and not name.endswith(entries.ENDINGS):
            return self._of_any_fields(path)
        if source in SETS:
            if not name.endswith(".json"):
                raise UserError(f"{path} is no input of data.source={source}: expected a .json")
            return [FoundFile(path=path, format=source)]
        if source == MIX or (source == "auto" and name.endswith(entries.ENDINGS)):
            return list(self._mixed(path))
        if source == "urls":
            if not is_table(path):
                raise UserError(f"{path} is no input of data.source=urls: expected CSV, TSV, Parquet or JSON")
            return [FoundFile(path=path, format="urls")]
        if source in ("auto", "webdataset"):
            if is_tar(name):
                return [FoundFile(path=path, format=tar_format(path))]
            if name.endswith(".json") and wids.is_index(path):
                return _indexed(path)
        if source in ("auto", "jsonl", "text") and name.endswith((".json", *JSON_LINES)):
            return [FoundFile(path=path, format=json_format(path, source))]
        if source in ("auto", "text") and name.endswith(ARROW):
            from hpcdata.sources.pictures import arrow

            return [FoundFile(path=path, format=arrow.format_of(path))]
        if source in ("auto", "text", TABLES):
            if name.endswith(".parquet"):
                return [FoundFile(path=path, format=self._parquet_format(path))]
            if source == "auto" and is_metadata(path):
                return [FoundFile(path=path, format="csv")]
            if source != TABLES and name.endswith(ENDINGS):
                codec = codec_of(path, is_document=True)
                is_parquet = codec == PARQUET and not self.as_older
                document = "document" + codec.removeprefix(PARQUET)
                return [FoundFile(path=path, format=self._parquet_format(path) if is_parquet else document)]
        if name.endswith(_KNOWN):
            raise UserError(f"{path} is no input of data.source={source}: its name has no known ending")
        return [FoundFile(path=path, format=format_of_content(path, source))]

    def _of_any_fields(self, path: str) -> list[FoundFile]:
        name = path.lower()
        if name.endswith(tables.ENDINGS):
            return [FoundFile(path=path, format=table_format(path))]
        if name.endswith(".parquet"):
            return [FoundFile(path=path, format=RECORDS)]
        if name.endswith((".json", *JSON_LINES)):
            return [FoundFile(path=path, format=json_format(path, "jsonl"))]
        raise UserError(f"{path} is no input: data.mapping is for .json, .jsonl, .csv, .tsv and .parquet")

    def _mixed(self, path: str) -> Iterator[FoundFile]:
        unknown = set[str]()
        for entry in entries.read_mix(path, seed=self.seed):
            yield FoundFile(path=entry.path, format=self._format_of(entry), take=entry.take, take_seed=entry.take_seed)
            unknown.update(entry.unknown)
        if unknown:
            logger.warning("%s: %s of its entries is not read", path, ", ".join(sorted(unknown)))

    def _format_of(self, entry: entries.Entry) -> str:
        name, where = entry.path.lower(), f"{entry.where}: {entry.path}"
        if name.endswith((".json", *JSON_LINES)):
            return json_format(entry.path, "jsonl")
        if name.endswith(".parquet"):
            return RECORDS
        if not name.endswith(tables.ENDINGS):
            raise UserError(f"{where} is none of .json, .jsonl, .parquet, .csv and .tsv, which mixes list")
        if not self.mapping:
            raise UserError(f"{where} has columns of any names: data.mapping says which of them is what")
        return table_format(entry.path)

    def _parquet_format(self, path: str) -> str:
        if self.source == TABLES:
            return RECORDS
        if self.source != "auto" or self.as_older:
            return PARQUET
        from hpcdata.sources.pictures.tables import holds_pictures

        return RECORDS if holds_pictures(path) else PARQUET

    def _are_of_pictures_beside(self, paths: Sequence[str]) -> bool:
        """Whether files are what img2dataset writes beside its folders of pictures: tables without any picture."""
        if self.source != "auto" or self.as_older or not paths or not _are_beside_folders(paths):
            return False
        return all(self._parquet_format(path) == PARQUET for path in paths)

    def _in_folder(self, folder: str) -> list[FoundFile]:
        if self.source == "folder" and not self.mapping:
            return [FoundFile(path=folder, format="folder")]
        if self.source == "urls" and tables_in(folder, without=self.without):
            return [FoundFile(path=folder, format="urls")]
        if not self.mapping and self.source in ("auto", "webdataset"):
            for name in wids.INDEX_NAMES:
                index = os.path.join(folder, name)
                with refusing_faults(index):
                    is_there = kind_of(index) == "file"
                if is_there and wids.is_index(index):
                    return _indexed(index)
        contents = (_OF_ANY_FIELDS,) if self.mapping else _folder_contents(self.source)
        for endings in contents:
            if endings is _IMAGES:
                if self._holds_pictures(folder):
                    self._require_no_list(folder)
                    return [FoundFile(path=folder, format="folder")]
                continue
            found = []
            if set(ENDINGS) <= set(endings) and self._holds_many(folder):
                found, endings = [FoundFile(path=folder, format="documentfolder")], tuple(set(endings) - set(ENDINGS))
            paths = list(self._with_endings(folder, endings))
            if self._are_of_pictures_beside(paths):
                logger.info("%s: each table stands beside a folder of its name, whose pictures are read", folder)
                continue
            found += [item for path in paths for item in self.found(path)]
            if found:
                return found
        _, not_read = find_account(folder, (), self.without)
        held = f": it holds {describe_not_read(not_read)}" if not_read else ""
        raise UserError(f"{folder} holds no input of data.source={self.source}{held}")

    def _with_endings(self, folder: str, endings: tuple[str, ...]) -> Iterator[str]:
        for directory, names in walk(folder, without=self.without):
            saved = _saved(directory, names) if ARROW in endings and not self.as_older else ()
            for name in names:
                path = os.path.join(directory, name)
                if name.endswith(ARROW) and name not in saved:
                    continue
                is_note = _is_note(path) and not (self.mapping and name.lower().endswith(tables.ENDINGS))
                if name.lower().endswith(endings) and (self.as_older or not is_note):
                    yield path

    def _holds_many(self, folder: str) -> bool:
        if self.as_older or self.listed is not None:
            return folder in (self.listed or ())
        return next(itertools.islice(self._with_endings(folder, ENDINGS), MANY - 1, None), None) is not None

    def _require_no_list(self, folder: str) -> None:
        """Raises UserError for an array of records beside pictures, whose texts would be lost: no picture's sidecar."""
        _, names = next(iter(walk(folder, without=self.without)))
        pictures = {stem for stem, end in map(os.path.splitext, names) if end[1:].lower() in IMAGE_EXTENSIONS}
        of_none = [name for name in names if name.lower().endswith(".json") and name[:-5] not in pictures]
        for name in [] if self.as_older or self.listed is not None else of_none[:_MOST_OPENED]:
            path = os.path.join(folder, name)
            with refusing_faults(path):
                is_list = read_beginning(path, _HEAD_BYTES).lstrip()[:1] == b"["
            if is_list:
                raise UserError(
                    f"{folder} holds a list of records, {name}, beside pictures: name {path} to read them, or set "
                    "data.source=folder to read the pictures alone"
                )

    def _holds_pictures(self, folder: str) -> bool:
        """By endings, and by the first bytes of some files whose ending says nothing."""
        known, num_left = OLDER_EXTENSIONS if self.as_older else IMAGE_EXTENSIONS, 0 if self.as_older else _MOST_OPENED
        for directory, names in walk(folder, without=self.without):
            for name in names:
                extension = os.path.splitext(name)[1][1:].lower()
                if extension in known:
                    return True
                if num_left and says_nothing(extension) and not name.lower().endswith(_KNOWN):
                    num_left -= 1
                    if is_picture(os.path.join(directory, name)):
                        return True
        return False


def _saved(directory: str, names: Sequence[str]) -> Collection[str]:
    """The files of rows in a folder of save_to_disk; what else of Arrow lies there are caches."""
    if "state.json" not in names:
        return ()
    from hpcdata.sources.pictures import arrow

    return frozenset(arrow.data_files(directory))


def _is_note(path: str) -> bool:
    if path.lower().endswith(".csv"):
        return not is_metadata(path)
    return path.endswith((".json", ".jsonl")) and NOTES.fullmatch(os.path.basename(path)) is not None


def _are_beside_folders(paths: Sequence[str]) -> bool:
    """Whether each is a table beside a folder of its name: `00000.parquet` beside `00000/`."""
    for path in paths:
        stem, ending = os.path.splitext(path)
        with refusing_faults(stem):
            if ending.lower() != ".parquet" or kind_of(stem) != "folder":
                return False
    return True


def _folder_contents(source: str) -> tuple[tuple[str, ...], ...]:
    """What to look for in a folder, in this order."""
    tars, rows = TARS, (*JSON_LINES, ".parquet", ARROW)
    return {
        "auto": (tars, (*rows, NAME), _IMAGES, ENDINGS, (".json",)),
        "webdataset": (tars,),
        "jsonl": ((*JSON_LINES, ".json"),),
        TABLES: ((".parquet",),),
        "text": ((*rows, ".json", *ENDINGS),),
        "urls": (),
        "coco": ((".json",),),
        "vqa": (("questions.json",),),
    }[source]


def _indexed(path: str) -> list[FoundFile]:
    shards = wids.read_index(path)
    names = [shard.path for shard in shards if not is_tar(shard.path.lower())]
    if names:
        raise UserError(f"{path} lists {names[0]}, which is no tar")
    return [
        FoundFile(path=shard.path, format=tar_format(shard.path), num_declared=shard.num_samples) for shard in shards
    ]
