"""Sources: raw files -> `Sample`, one format a file, behind `list_inputs`, `prepare`, `scan` and `read`.

May use: base, samples, native, media, order.

    files = list_inputs("/data/cc3m-{0000..0575}.tar", "auto")      the inputs, each with a label and a format
    file  = prepare(file, folder)                                   arrays and folders of pictures become JSON lines
    scan_ = scan(file, every=4096, options=options)                 counts samples, notes where reading may start
    for record in read(file, scan_, first=8192, count=4096, options=options): ...

    base          what all sources agree on: InputFile, Options, Scan, rules for texts and keys
    inputs/       which files a run reads
    others        files that an input is made from beside its own
    patterns      paths, globs, braces
    sets/         annotations of COCO, LVIS and VQA v2
    limits        how much a compressed input may unpack to
    decoding      gzip and zstd -> bytes
    streams       compressed streams, told by their first bytes
    tar/          WebDataset
    json_lines    JSON lines
    custom/       JSON, CSV, TSV and Parquet of any fields, by a mapping
    mixes/        LLaVA's lists of JSON files, with the part of each that is taken
    parsing       bytes of JSON -> values, and back
    records       one parsed record -> the parts of a sample
    pictures/     which pictures a record names, and where they lie
    url_lists/    tables of URLs as JSON lines
    json/         files of JSON that are no lines: arrays, and records where they stand
    folder        a folder of pictures with texts as JSON lines
    account       what the folders of inputs hold, and what of it is not read
    documents     text files, and folders of many as JSON lines
    parquet       text columns
    parquet_files files of Parquet as pyarrow reads them, a page at a time; damage told from faults
    datasets/     rows of a dataset of ours, by their positions
    at_random     single records in any order
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Protocol, cast

from hpcdata.base.reads import naming
from hpcdata.samples import Documents, Record, RowRange
from hpcdata.sources.account import Found, NotRead, find_account
from hpcdata.sources.base import MOST_AT_ONCE, RECORDS, Each, InputFile, Options, Scan, refusing_faults
from hpcdata.sources.inputs.listing import list_inputs, warn_of_differences
from hpcdata.sources.inputs.preparing import prepare
from hpcdata.sources.mixes.parts import is_part

__all__ = [
    "MOST_AT_ONCE",
    "Found",
    "InputFile",
    "NotRead",
    "Options",
    "Scan",
    "carries_images",
    "find_account",
    "gives_documents",
    "list_inputs",
    "prepare",
    "read",
    "read_documents",
    "scan",
    "warn_of_differences",
]

_MODULES = {
    "tar": "tar.reading",
    "tar.gz": "tar.reading",
    "jsonl": "json_lines",
    "jsonl.gz": "json_lines",
    "jsonl.zst": "json_lines",
    "listing": "json_lines",
    "text": "json_lines",
    "text.gz": "json_lines",
    "text.zst": "json_lines",
    "parquet": "parquet",
    "dataset": "datasets.rows",
    RECORDS: "pictures.tables",
    "arrow": "pictures.arrow",
    "textarrow": "pictures.arrow",
    "arrow.exported": "pictures.arrow",
    "documents": "documents",
    "document": "documents",
    "document.gz": "documents",
    "document.zst": "documents",
}


class _Format(Protocol):
    def scan(self, file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan: ...

    def read(self, file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]: ...


class _Bulk(Protocol):
    def read_documents(
        self, file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
    ) -> Iterator[Documents | RowRange]: ...


def carries_images(format_name: str) -> bool:
    """Whether samples of this format may hold images."""
    return format_name == RECORDS or not format_name.startswith(("text", "parquet", "document"))


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Counts the samples of one input file and notes a cut for every `every`-th. Raises UserError if it cannot.

    each: is told where every sample begins, in order.
    """
    with refusing_faults(file.path):
        found = _module(file).scan(file, every=every, options=options, each=each)
        if options.mapping and found.num_samples:
            from hpcdata.sources.custom import fitting

            fitting.require_fit(file, read(file, found, first=0, count=found.num_samples, options=options))
        return found


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    """Yields exactly `count` records, for positions `first` to `first + count - 1`, in order and in constant memory.

    The same arguments always yield the same records. Raises UserError if the file no longer holds what was planned, and
    OSError, with the file's name, for what is no property of the file: a read error, memory that is not there.
    """
    with naming(file.path):
        yield from _module(file).read(file, scan, first=first, count=count, options=options)


def gives_documents(format_name: str) -> bool:
    """Whether `read_documents` can read this format."""
    return format_name != RECORDS and format_name.startswith(("text", "parquet"))


def read_documents(
    file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
) -> Iterator[Documents | RowRange]:
    """The records that `read` yields, a multiple of `batch_size` at once, for formats that `gives_documents` names."""
    module = cast(_Bulk, _module(file))
    with naming(file.path):
        yield from module.read_documents(file, scan, first=first, count=count, batch_size=batch_size, options=options)


def _module(file: InputFile) -> _Format:
    name = "pictures.table_parts" if file.format == RECORDS and is_part(file) else _MODULES[file.format]
    return cast(_Format, importlib.import_module(f"hpcdata.sources.{name}"))
