"""A table, or a folder of them, as JSON lines in the order of the sha256 of their URLs.

Rows of one URL then stand side by side, so that it is fetched once for all of them, and the URLs of one host are spread
over the whole list, so that nobody asks it for all at once. Memory holds a 256th of the rows at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.folder import NOTES, walk
from hpcdata.sources.limits import most_records, require_few_records
from hpcdata.sources.url_lists.fields import urls_of
from hpcdata.sources.url_lists.rows import is_table, rows_of

_BUCKETS = 256
_BUFFER_BYTES = 1 << 15


def tables_in(path: str, *, without: str = "") -> list[str]:
    """The tables of a folder, or the one file, in order."""
    if not os.path.isdir(path):
        return [path]
    found = (os.path.join(folder, name) for folder, names in walk(path, without=without) for name in names)
    return [name for name in found if is_table(name) and not NOTES.fullmatch(os.path.basename(name))]


def list_table(file: InputFile, out_path: str, *, url_field: str | None, without: str = "") -> int:
    """Writes the rows and returns their number. Raises UserError."""
    paths = tables_in(file.path, without=without)
    num_rows = 0
    folder = os.path.dirname(out_path)
    with tempfile.TemporaryDirectory(prefix=".table-", dir=folder) as work:
        names = [Path(work) / f"{number:02x}" for number in range(_BUCKETS)]
        with contextlib.ExitStack() as stack:
            buckets = [stack.enter_context(open(name, "wb", buffering=_BUFFER_BYTES)) for name in names]
            for path in paths:
                with refusing_faults(path):
                    most = most_records(os.stat(path).st_size)
                    before = num_rows
                    for key, line in _keyed(replace(file, path=path), url_field, work):
                        buckets[key[0]].write(key + num_rows.to_bytes(8, "big") + line + b"\n")
                        num_rows += 1
                        if num_rows % 1024 == 0:
                            require_few_records(path, num_rows - before, most)
        partial = f"{out_path}.{os.getpid()}.partial"
        with open(partial, "wb") as out:
            for name in names:
                with refusing_faults(str(name)):
                    data = name.read_bytes()
                out.writelines(line[40:] for line in sorted(_lines(data)))
            out.flush()
            os.fsync(out.fileno())
    os.replace(partial, out_path)
    return num_rows


def _keyed(file: InputFile, url_field: str | None, folder: str) -> Iterator[tuple[bytes, bytes]]:
    """(32 bytes to sort by, a line) for each row; those without a URL are spread, too."""
    num_urls = number = 0
    fields: set[str] = set()
    for number, (line, record) in enumerate(rows_of(file, url_field, folder), 1):
        url = _first_url(record, url_field) if record is not None else ""
        num_urls += bool(url)
        if record is not None and not num_urls:
            fields.update(list(record)[:8])
        yield hashlib.sha256((url or f"\0{number}").encode("utf-8", "surrogatepass")).digest(), line
    if number and not num_urls:
        names = ", ".join(map(ascii, sorted(fields)[:12])) or "none"
        where = f"fetch.url_field={url_field}" if url_field else "the usual fields: set fetch.url_field"
        raise UserError(f"{file.path} has {number} rows with {names}, and no URL in {where}")


def _first_url(record: dict[str, object], url_field: str | None) -> str:
    try:
        return (urls_of(record, url_field) or [""])[0]
    except BadSample:
        return ""


def _lines(data: bytes) -> Iterator[bytes]:
    """Keys may hold line breaks: a line ends with the first break behind its 40 bytes."""
    start = 0
    while start < len(data):
        end = data.index(b"\n", start + 40) + 1
        yield data[start:end]
        start = end
