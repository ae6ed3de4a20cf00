"""Which files a run reads, in which order, under which labels and formats. Resolved once, into the plan.

`auto` goes by names, and by content where a name lies about compression: tars, JSON lines and arrays, Parquet, text.
A folder holds, in this order, a wids index, tars, JSON lines or Parquet, pictures, text files. JSON whose beginning
mentions images, conversations or captions is read as samples (`jsonl`), other JSON as documents (`text`).
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.media.kinds import IMAGE_EXTENSIONS, says_nothing
from hpcdata.samples import BadSample
from hpcdata.sources.account import describe_not_read, find_account
from hpcdata.sources.base import OLDER_EXTENSIONS, RECORDS, InputFile, Options, Scan, clean_name, refusing_faults
from hpcdata.sources.custom import tables
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.documents import ENDINGS, MANY, list_documents
from hpcdata.sources.folder import NOTES, is_below, is_picture, list_folder, walk
from hpcdata.sources.json.array import flatten_json
from hpcdata.sources.json.shapes import SNIFF_BYTES, find_shape
from hpcdata.sources.mixes import entries, parts
from hpcdata.sources.patterns import expand_paths
from hpcdata.sources.pictures.metadata import NAME, flatten_csv, is_metadata
from hpcdata.sources.sets.settings import SOURCES as SETS
from hpcdata.sources.streams import PARQUET, chunks, codec_of, is_tar_header
from hpcdata.sources.tar import wids
from hpcdata.sources.url_lists.listing import list_table, tables_in
from hpcdata.sources.url_lists.rows import is_table

logger = logging.getLogger(__name__)

MIX = "llava_mix"
"""The source of a list of files; `auto` knows one as well."""
_TARS = (".tar", ".tar.gz", ".tgz")
_JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
_IMAGES = ("",)
_ANNOTATIONS = re.compile(
    rb'"(questions)"\s*:\s*\[\s*\{[^{}]*"question_id"|"(images)"\s*:\s*\[\s*\{[^{}]*"(?:file_name|coco_url|license)"\s*:'
    rb'|"(licenses|licenes)"\s*:\s*\['
)
_MOST_OF_A_HEAD = 1 << 16
_TABLE, _ARROW = "table", ".arrow"
_OF_ANY_FIELDS = (*_JSON_LINES, ".json", ".parquet", *tables.ENDINGS)
_KNOWN = (*_TARS, *_JSON_LINES, *ENDINGS, ".json", ".parquet")
_MOST_OPENED = 100
_SAMPLE_FIELDS = re.compile(
    rb'"(image|image_path|conversations|text_prompt|caption)"\s*:|'
    rb'"(images|img|img_path|image_url|messages|videos?|audios?)"\s*:\s*(?!null|""|\[\s*\]|\{\s*\})["\[{]|'
    rb'"file_name"\s*:\s*"[^"]*\.(%s)"' % b"|".join(extension.encode() for extension in sorted(IMAGE_EXTENSIONS)),
    re.IGNORECASE,
)
_FOLDERS = ("folder", "documentfolder")
_OF_RECORDS = ("jsonl", "array", "text", "textarray", "parquet", "csv", "table", "urls", "arrow", *SETS)
TABLES = "parquet"
"""The value of `data.source` that takes Parquet alone, all of it as records."""
_PREPARED = {
    "folder": "listing",
    "array": "jsonl",
    "textarray": "text",
    "csv": "jsonl",
    "table": "jsonl",
    "coco": "jsonl",
    "vqa": "jsonl",
    "documentfolder": "documents",
    "urls": "jsonl",
}


@dataclass(frozen=True, kw_only=True)
class _Found:
    path: str
    format: str
    num_declared: int | None = None
    take: str = ""
    take_seed: int = 0


def list_inputs(
    raw_data_dir: str | Sequence[str],
    source: str,
    *,
    without: str = "",
    image_root: str | None = None,
    allows_outside: bool = False,
    as_older: bool = False,
    listed: Collection[str] | None = None,
    seed: int = 0,
    mapping: str = "",
    made: str = "",
) -> list[InputFile]:
    """All inputs in order. Raises UserError if one is missing, is of no known kind, or there is none.

    without: a folder that is never looked into, of a run that writes into the folder of its inputs. image_root: where
    pictures of records lie, None for the folder of each file. allows_outside: also anywhere else. as_older: chooses
    as plans did that have no `found`, by names alone and with notes on a data set (`state.json`) among the inputs.
    listed: folders whose documents are one input, a listing, as a plan says; None: where there are many of them. seed:
    what entries `random:N` of mixes draw by. mapping: as in `Options`; by it files of any fields are inputs.
    made: what is made of annotations, as `sets.settings.settings_line` says it.
    """
    root = image_root and os.path.abspath(image_root)
    if root:
        with refusing_faults(root):
            if kind_of(root) != "folder":
                raise UserError(f"data.image_root={image_root} is no folder")
    look = _Look(source=source, without=without, as_older=as_older, listed=listed, seed=seed, mapping=mapping)
    paths = [path for path in expand_paths(raw_data_dir) if not is_below(path, without)]
    found = [file for path in paths for file in look.found(path)]
    if not found:
        raise UserError(f"no inputs in {raw_data_dir}")
    unique = _without_repeats(found)
    parent = os.path.commonpath([os.path.dirname(file.path) for file in unique])
    return [
        InputFile(
            path=file.path,
            label=label,
            format=file.format,
            num_declared=file.num_declared,
            take=file.take,
            take_seed=file.take_seed,
            settings=mapping if file.format.startswith(_TABLE) else made if file.format in SETS else "",
            **_places(file, root, allows_outside),
        )
        for file, label in zip(unique, _labels(unique, parent), strict=True)
    ]


def _labels(files: Sequence[_Found], parent: str) -> Iterator[str]:
    """Names below a folder. Behind that of a file of which a part is taken stands which; numbers tell repeats apart."""
    seen: Counter[str] = Counter()
    for file in files:
        label = clean_name(os.fsencode(os.path.relpath(file.path, parent)))
        label += f"@{file.take}" if file.take not in ("", parts.ALL) else ""
        seen[label] += 1
        yield f"{label}@{seen[label]}" if seen[label] > 1 else label


class _Places(TypedDict):
    base: str
    roots: tuple[str, ...]


def _places(file: _Found, root: str | None, allows_outside: bool) -> _Places:
    """Where the pictures of its records lie, and may lie."""
    if not file.format.startswith(_OF_RECORDS):
        return _Places(base=file.path if file.format in _FOLDERS else os.path.dirname(file.path), roots=())
    base = root or (file.path if os.path.isdir(file.path) else os.path.dirname(file.path))
    return _Places(base=base, roots=("/",) if allows_outside else (base,))


def prepare(file: InputFile, folder: Path, *, without: str = "", options: Options | None = None) -> InputFile:
    """The input in a form that can be sliced: JSON arrays, folders and tables become JSON lines in `folder`.

    Other formats are returned as they are, and nothing is written. Raises UserError.
    """
    prepared = _PREPARED.get(file.format.partition(".")[0])
    if prepared is None:
        return file
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.label)[:64]
    out_path = str(folder / f"{name}-{hashlib.sha256(file.label.encode()).hexdigest()[:8]}.jsonl")
    if prepared == "listing":
        list_folder(file.path, out_path, without=without)
    elif file.format == "csv":
        flatten_csv(file, out_path)
    elif file.format.startswith(_TABLE):
        tables.flatten_table(file, out_path, parsed(file.settings))
    elif file.format in SETS:
        importlib.import_module(f"hpcdata.sources.sets.{file.format}").flatten(file, out_path)
    elif file.format == "urls":
        list_table(file, out_path, url_field=options.url_field if options else None, without=without)
    elif prepared == "documents":
        list_documents(file.path, out_path, without=without)
    else:
        flatten_json(file, out_path)
    return replace(file, path=out_path, format=prepared)


def warn_of_differences(files: Sequence[InputFile], scans: Sequence[Scan]) -> int:
    """Logs the files that hold another number of samples than their wids index says; returns how many do."""
    differing = [
        (file, scan)
        for file, scan in zip(files, scans, strict=True)
        if file.num_declared is not None and file.num_declared != scan.num_samples
    ]
    for file, scan in differing:
        logger.warning("%s has %d samples, its index says %d", file.label, scan.num_samples, file.num_declared)
    return len(differing)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is looked for, and where not."""

    source: str
    without: str
    as_older: bool
    listed: Collection[str] | None
    seed: int = 0
    mapping: str = ""

    def found(self, path: str) -> list[_Found]:
        source = self.source
        with refusing_faults(path):
            kind = kind_of(path)
        if source == "dataset":
            return [_Found(path=os.path.join(path, "manifest.json") if kind == "folder" else path, format="dataset")]
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
            return [_Found(path=path, format=source)]
        if source == MIX or (source == "auto" and name.endswith(entries.ENDINGS)):
            return list(self._mixed(path))
        if source == "urls":
            if not is_table(path):
                raise UserError(f"{path} is no input of data.source=urls: expected CSV, TSV, Parquet or JSON")
            return [_Found(path=path, format="urls")]
        if source in ("auto", "webdataset"):
            if _is_tar(name):
                return [_Found(path=path, format=_tar_format(path))]
            if name.endswith(".json") and wids.is_index(path):
                return _indexed(path)
        if source in ("auto", "jsonl", "text") and name.endswith((".json", *_JSON_LINES)):
            return [_Found(path=path, format=_json_format(path, source))]
        if source in ("auto", "text") and name.endswith(_ARROW):
            from hpcdata.sources.pictures import arrow

            return [_Found(path=path, format=arrow.format_of(path))]
        if source in ("auto", "text", TABLES):
            if name.endswith(".parquet"):
                return [_Found(path=path, format=self._parquet_format(path))]
            if source == "auto" and is_metadata(path):
                return [_Found(path=path, format="csv")]
            if source != TABLES and name.endswith(ENDINGS):
                codec = codec_of(path, is_document=True)
                is_parquet = codec == PARQUET and not self.as_older
                document = "document" + codec.removeprefix(PARQUET)
                return [_Found(path=path, format=self._parquet_format(path) if is_parquet else document)]
        if name.endswith(_KNOWN):
            raise UserError(f"{path} is no input of data.source={source}: its name has no known ending")
        return [_Found(path=path, format=_format_of_content(path, source))]

    def _of_any_fields(self, path: str) -> list[_Found]:
        name = path.lower()
        if name.endswith(tables.ENDINGS):
            return [_Found(path=path, format=_table_format(path))]
        if name.endswith(".parquet"):
            return [_Found(path=path, format=RECORDS)]
        if name.endswith((".json", *_JSON_LINES)):
            return [_Found(path=path, format=_json_format(path, "jsonl"))]
        raise UserError(f"{path} is no input: data.mapping is for .json, .jsonl, .csv, .tsv and .parquet")

    def _mixed(self, path: str) -> Iterator[_Found]:
        unknown = set[str]()
        for entry in entries.read_mix(path, seed=self.seed):
            yield _Found(path=entry.path, format=self._format_of(entry), take=entry.take, take_seed=entry.take_seed)
            unknown.update(entry.unknown)
        if unknown:
            logger.warning("%s: %s of its entries is not read", path, ", ".join(sorted(unknown)))

    def _format_of(self, entry: entries.Entry) -> str:
        name, where = entry.path.lower(), f"{entry.where}: {entry.path}"
        if name.endswith((".json", *_JSON_LINES)):
            return _json_format(entry.path, "jsonl")
        if name.endswith(".parquet"):
            if entry.take != parts.ALL:
                raise UserError(
                    f"{where} is Parquet, of which a mix takes all: {entry.take} is for .json, .jsonl, .csv and .tsv "
                    "(hpcdata convert llava-parquet writes JSON)"
                )
            return RECORDS
        if not name.endswith(tables.ENDINGS):
            raise UserError(f"{where} is none of .json, .jsonl, .parquet, .csv and .tsv, which mixes list")
        if not self.mapping:
            raise UserError(f"{where} has columns of any names: data.mapping says which of them is what")
        return _table_format(entry.path)

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

    def _in_folder(self, folder: str) -> list[_Found]:
        if self.source == "folder" and not self.mapping:
            return [_Found(path=folder, format="folder")]
        if self.source == "urls" and tables_in(folder, without=self.without):
            return [_Found(path=folder, format="urls")]
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
                    return [_Found(path=folder, format="folder")]
                continue
            found = []
            if set(ENDINGS) <= set(endings) and self._holds_many(folder):
                found, endings = [_Found(path=folder, format="documentfolder")], tuple(set(endings) - set(ENDINGS))
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
            saved = _saved(directory, names) if _ARROW in endings and not self.as_older else ()
            for name in names:
                path = os.path.join(directory, name)
                if name.endswith(_ARROW) and name not in saved:
                    continue
                is_note = _is_note(path) and not (self.mapping and name.lower().endswith(tables.ENDINGS))
                if name.lower().endswith(endings) and (self.as_older or not is_note):
                    yield path

    def _holds_many(self, folder: str) -> bool:
        if self.as_older or self.listed is not None:
            return folder in (self.listed or ())
        return next(itertools.islice(self._with_endings(folder, ENDINGS), MANY - 1, None), None) is not None

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
    tars, rows = _TARS, (*_JSON_LINES, ".parquet", _ARROW)
    return {
        "auto": (tars, (*rows, NAME), _IMAGES, ENDINGS, (".json",)),
        "webdataset": (tars,),
        "jsonl": ((*_JSON_LINES, ".json"),),
        TABLES: ((".parquet",),),
        "text": ((*rows, ".json", *ENDINGS),),
        "urls": (),
        "coco": ((".json",),),
        "vqa": (("questions.json",),),
    }[source]


def _indexed(path: str) -> list[_Found]:
    shards = wids.read_index(path)
    names = [shard.path for shard in shards if not _is_tar(shard.path.lower())]
    if names:
        raise UserError(f"{path} lists {names[0]}, which is no tar")
    return [_Found(path=shard.path, format=_tar_format(shard.path), num_declared=shard.num_samples) for shard in shards]


def _table_format(path: str) -> str:
    return _TABLE + codec_of(path).removeprefix(PARQUET)


def _is_tar(name: str) -> bool:
    return name.endswith(_TARS)


def _tar_format(path: str) -> str:
    codec = codec_of(path, is_tar=True)
    if codec == PARQUET:
        raise UserError(f"{path} holds Parquet, and is named as a tar: rename it")
    if codec == ".zst":
        raise UserError(f"{path} holds a zstd stream, and tars are read plain or gzipped: decompress it with zstd -d")
    return "tar" + codec


def _format_of_content(path: str, source: str) -> str:
    """Of a file whose name has no ending that is known for the source. Raises UserError."""
    codec = codec_of(path)
    if codec == PARQUET and source in ("auto", "text", TABLES):
        return RECORDS if source == TABLES else PARQUET
    beginning = _beginning(InputFile(path=path, label="", format="text" + codec.removeprefix(PARQUET)))
    if is_tar_header(beginning) and source in ("auto", "webdataset"):
        return _tar_format(path)
    if beginning.lstrip()[:1] in (b"{", b"[") and source in ("auto", "jsonl", "text"):
        return _json_format(path, source)
    raise UserError(f"{path} is no input of data.source={source}: its name has no known ending, and its bytes no mark")


def _json_format(path: str, source: str) -> str:
    codec = codec_of(path)
    if codec == PARQUET:
        if source == "jsonl":
            raise UserError(f"{path} holds Parquet, whatever its name says: it is read with data.source=text")
        return PARQUET
    beginning = _beginning(InputFile(path=path, label="", format="text" + codec))
    head = beginning[:_MOST_OF_A_HEAD]
    if path.lower().endswith(".json") and head.lstrip()[:1] == b"{" and (found := _ANNOTATIONS.search(head)):
        kind = "vqa" if found[1] else "coco"
        raise UserError(f"{path} holds annotations in one object, as COCO and VQA v2 do: use data.source={kind}")
    is_samples = source == "jsonl" or (source == "auto" and _SAMPLE_FIELDS.search(beginning))
    if find_shape(path, beginning) == "array":
        return ("array" if is_samples else "textarray") + codec
    return ("jsonl" if is_samples else "text") + codec


def _beginning(file: InputFile) -> bytes:
    beginning = b""
    stream = chunks(file)
    try:
        with refusing_faults(file.path):
            while len(beginning) < SNIFF_BYTES and (chunk := next(stream, b"")):
                beginning += chunk
    except BadSample:
        pass
    finally:
        stream.close()
    return beginning[:SNIFF_BYTES]


def _without_repeats(found: list[_Found]) -> list[_Found]:
    """A mix may list a file several times: each time has a seed of its own."""
    unique: dict[tuple[str, str, int], _Found] = {}
    for file in found:
        first = unique.setdefault((os.path.realpath(file.path), file.take, file.take_seed), file)
        if first is not file:
            logger.warning("input %s is given twice (first as %s): it is read once", file.path, first.path)
    return list(unique.values())
