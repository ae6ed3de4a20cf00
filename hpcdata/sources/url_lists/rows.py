"""One table file -> its rows as JSON lines: CSV, TSV, Parquet, JSON lines and arrays, plain or compressed.

A row that cannot be read stays a line, of what it is, and becomes a reject when it is read as JSON. The first line of a
CSV or TSV names the columns, unless a URL stands in it: then there is no header, as in Conceptual Captions, and the
column of that URL is `url`; if there is one other it is `caption`, else they are `column_0`, `column_1` and so on.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace

from hpcdata.base.errors import UserError
from hpcdata.base.units import one_line
from hpcdata.samples import BadSample
from hpcdata.sources import json_lines
from hpcdata.sources.base import InputFile
from hpcdata.sources.json.array import flatten_json
from hpcdata.sources.json.shapes import SNIFF_BYTES, find_shape
from hpcdata.sources.limits import bounded
from hpcdata.sources.parsing import load
from hpcdata.sources.pictures.metadata import MOST_OF_A_LINE, byte_lines
from hpcdata.sources.streams import PARQUET, chunks, codec_of
from hpcdata.sources.url_lists.fields import NAMES, is_url, key_of

_JSON = (".jsonl", ".ndjson", ".json")
_CODECS = ("", ".gz", ".zst")
ENDINGS = (".parquet", *(name + codec for name in (".csv", ".tsv", *_JSON) for codec in _CODECS))
_MOST_COLUMNS = 1000
Row = tuple[bytes, dict[str, object] | None]
"""(a line of JSON without its break, or of what is none; what it says, None where that is no object)"""


def is_table(path: str) -> bool:
    """By its name."""
    return path.lower().endswith(ENDINGS)


def rows_of(file: InputFile, url_field: str | None, folder: str) -> Iterator[Row]:
    """The rows of a file that `is_table`. folder: for a copy of a JSON array.

    Raises UserError for a file that cannot be a table, or names no URL in its header.
    """
    name, codec = file.path.lower(), codec_of(file.path)
    if codec == PARQUET:
        yield from _of_parquet(file)
        return
    file = replace(file, format=f"text{codec}")
    if name.endswith((".csv", ".csv.gz", ".csv.zst")):
        yield from _with_names(_csv_cells(file), file, url_field)
    elif name.endswith((".tsv", ".tsv.gz", ".tsv.zst")):
        yield from _with_names(_tsv_cells(file), file, url_field)
    else:
        yield from _of_json(file, folder)


def _of_parquet(file: InputFile) -> Iterator[Row]:
    from hpcdata.sources.pictures import tables as parquet_tables

    for row in parquet_tables.rows_without_bytes(file):
        if isinstance(row, dict) and not any(isinstance(value, BadSample) for value in row.values()):
            yield json.dumps(row, default=str).encode(), row
        else:
            yield json.dumps(["this row of Parquet cannot be decoded"]).encode(), None


def _of_json(file: InputFile, folder: str) -> Iterator[Row]:
    beginning = b""
    for chunk in chunks(file):
        beginning += chunk
        if len(beginning) >= SNIFF_BYTES:
            break
    with tempfile.TemporaryDirectory(dir=folder) as copies:
        if find_shape(file.path, beginning[:SNIFF_BYTES]) == "array":
            path = os.path.join(copies, "lines")
            flatten_json(replace(file, format=f"array{file.format.removeprefix('text')}"), path)
            file = replace(file, path=path, format="text")
        for offset, line, problem in json_lines.lines(bounded(file, chunks(file)), 0, MOST_OF_A_LINE):
            if problem is not None:
                yield json.dumps([problem.message]).encode(), None
                continue
            line = line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line
            try:
                value = load(line)
            except BadSample:
                value = None
            yield line, value if isinstance(value, dict) else None


Cells = tuple[list[str], bytes]
"""(the cells of a row, its own bytes where they are no UTF-8)"""


def _tsv_cells(file: InputFile) -> Iterator[Cells]:
    """Tabs part cells and line breaks rows, whatever quotes stand between; a cell that is quoted whole is unquoted."""
    for offset, line, problem in json_lines.lines(bounded(file, chunks(file)), 0, MOST_OF_A_LINE):
        line = (line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line).rstrip(b"\r")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            yield [], line
            continue
        yield ([problem.message] if problem is not None else [_unquoted(cell) for cell in text.split("\t")]), b""


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def _csv_cells(file: InputFile) -> Iterator[Cells]:
    before = csv.field_size_limit(MOST_OF_A_LINE)
    try:
        reader = csv.reader(_text_lines(file))
        for cells in reader:
            if not cells:
                continue
            row = ",".join(cells)
            is_utf8 = not any("\ud800" <= char <= "\udfff" for char in row) if not row.isascii() else True
            yield cells, b"" if is_utf8 else row.encode("utf-8", "surrogateescape").replace(b"\n", b" ")
    except csv.Error as error:
        raise UserError(f"{file.path} is no CSV behind line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)


def _text_lines(file: InputFile) -> Iterator[str]:
    """With their breaks; bytes that are no UTF-8 are surrogates."""
    encoding = "utf-8-sig"
    for line in byte_lines(file):
        yield line.decode(encoding, "surrogateescape")
        encoding = "utf-8"


def _with_names(rows: Iterator[Cells], file: InputFile, url_field: str | None) -> Iterator[Row]:
    names: list[str] = []
    for cells, raw in rows:
        if not names and not raw:
            names, is_header = _names(cells, file, url_field)
            if is_header:
                continue
        if raw:
            yield raw, None
        elif len(cells) != len(names):
            yield json.dumps(cells[:_MOST_COLUMNS], ensure_ascii=False).encode(), None
        else:
            record: dict[str, object] = dict(zip(names, cells, strict=True))
            yield json.dumps(record, ensure_ascii=False).encode(), record


def _names(cells: list[str], file: InputFile, url_field: str | None) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first row holds them."""
    if len(cells) > _MOST_COLUMNS:
        raise UserError(f"{file.path} has {len(cells)} columns, the limit is {_MOST_COLUMNS}")
    place = next((index for index, cell in enumerate(cells) if is_url(cell)), None)
    if place is None:
        has_field = url_field in cells if url_field else any(key_of(cell) in NAMES for cell in cells)
        if not has_field:
            wanted = f"{url_field}, the name in fetch.url_field" if url_field else f"one of {', '.join(NAMES)}"
            shown = ", ".join(one_line(ascii(cell), 60) for cell in cells[:8])
            raise UserError(f"{file.path} begins with {shown}: no URL, and no column {wanted}: set fetch.url_field")
        if len(set(cells)) != len(cells):
            raise UserError(f"{file.path} has two columns of one name: rename one of them")
        return cells, True
    if len(cells) == 2:
        return (["url", "caption"] if place == 0 else ["caption", "url"]), False
    return [url_field or "url" if index == place else f"column_{index}" for index in range(len(cells))], False
