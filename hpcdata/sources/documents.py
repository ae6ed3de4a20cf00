"""Plain text files, one document a file: `.txt`, `.txt.gz`, `.txt.zst`; alone (`document`), or a folder of them.

A folder of many (`documents`) is listed once into JSON lines: a plan stays small, and no task walks the folder again.
A line is `{"key": ..., "text": ..., "codec": ..., "size": ..., "changed": ...}`: the path below the folder, how it is
compressed, its bytes and time of change. A document that is no longer as listed is never read.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Blob, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources import json_lines
from hpcdata.sources.base import (
    Each,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    clean_name,
    decoded_text,
    refusing_faults,
)
from hpcdata.sources.folder import walk
from hpcdata.sources.limits import most_large
from hpcdata.sources.streams import PARQUET, chunks, codec_of

ENDINGS = (".txt", ".txt.gz", ".txt.zst")
MANY = 1000
"""From so many documents on a folder is listed; fewer are an input each."""
_TIME_DIGITS = 20
"""Of a time in ns: times do not change the length of a listing, which is part of a plan's fingerprint."""


def list_documents(path: str, out_path: str, *, without: str = "") -> int:
    """Writes the listing of a folder, sorted, and returns the number of its lines. Raises UserError."""
    num_lines = 0
    partial = f"{out_path}.{os.getpid()}.partial"
    with open(partial, "w", encoding="ascii") as out:
        for directory, names in walk(path, without=without):
            for name in names:
                if name.lower().endswith(ENDINGS):
                    out.write(json.dumps(_entry(os.path.join(directory, name), path)) + "\n")
                    num_lines += 1
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)
    return num_lines


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """One sample, whatever is in the file; of a listing one for each line."""
    if file.format == "documents":
        return json_lines.scan(file, every=every, options=options, each=each)
    if each is not None:
        each(0)
    return Scan(num_samples=1, every=every, cuts=(0,))


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    if file.format == "documents":
        position = first
        for offset, line, _ in json_lines.rows_of(file, scan, first, count, _LINE_BYTES):
            yield _listed(file, position, offset, _loaded(line), options)
            position += 1
        if position != first + count:
            raise changed_since_planned(file, got=position, expected=first + count)
        return
    if first + count > 1:
        raise changed_since_planned(file, got=1, expected=first + count)
    if count:
        yield _record(file, f"{file.label}#0", 0, 0, options)


_LINE_BYTES = 1 << 20


def record_at(file: InputFile, position: int, offset: int, data: bytes, options: Options) -> Record:
    """The record of a listing's line that `data`, from `offset` on, begin with."""
    row = next(json_lines.lines(iter([data]), offset, _LINE_BYTES), None)
    if row is None or row[0] != offset:
        raise changed_since_planned(file, got=position, expected=position + 1)
    return _listed(file, position, offset, _loaded(row[1]), options)


def _record(file: InputFile, key: str, position: int, offset: int, options: Options) -> Record:
    try:
        text = decoded_text(_whole(file, options.max_record_bytes), what="the document")
        members = (Member(extension="txt", blob=Blob(path="", data=text.encode())),) if options.keeps_members else ()
        return Sample(position=position, key=key, parts=(TextPart(text=text),), offset=offset, members=members)
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=offset)


def _listed(file: InputFile, position: int, offset: int, entry: dict[str, Any], options: Options) -> Record:
    path, key = os.path.join(file.base, entry["text"]), f"{file.label}/{entry['key']}"
    if change := _change(path, entry):
        if not options.rejects_changed:
            name = clean_name(os.fsencode(path))
            advice = "restore it, use a new data.token_output_dir, or have it rejected (data.on_changed_input=reject)"
            raise UserError(f"{name} {change}: {advice}")
        message = f"{entry['key']} {change}"
        return Reject(position=position, key=key, reason=Reason.CHANGED_INPUT, message=message, offset=offset)
    document = InputFile(path=path, label=entry["key"], format="document" + entry["codec"])
    return _record(document, key, position, offset, options)


def _change(path: str, entry: dict[str, Any]) -> str:
    """What became of a document since it was listed; nothing if it is the same. Raises OSError."""
    try:
        stat = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "was removed after it was planned"
        raise
    is_same = (stat.st_size, _digits(stat.st_mtime_ns)) == (entry["size"], entry["changed"])
    return "" if is_same else "has changed since it was planned"


def _entry(path: str, folder: str) -> dict[str, Any]:
    codec = codec_of(path, is_document=True).removeprefix(PARQUET)
    with refusing_faults(path):
        stat = os.stat(path)
    relative = os.path.relpath(path, folder)
    return {
        "key": clean_name(os.fsencode(relative)),
        "text": relative,
        "codec": codec,
        "size": stat.st_size,
        "changed": _digits(stat.st_mtime_ns),
    }


def _digits(time_ns: int) -> str:
    return f"{time_ns:0{_TIME_DIGITS}d}"


def _loaded(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if all(isinstance(entry[name], str) for name in ("key", "text", "codec", "changed")):
            return entry
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise UserError("the listing of a folder in inputs/ is damaged: plan again into a new output directory")


def _whole(file: InputFile, limit: int) -> bytes:
    data = bytearray()
    is_packed = file.format.endswith((".gz", ".zst"))
    most = most_large(os.stat(file.path).st_size) if is_packed else math.inf
    for chunk in chunks(file):
        data += chunk
        if len(data) > most:
            raise BadSample(Reason.OVERSIZED_TEXT, f"unpacks to more than {most} bytes, the limit for its size")
        if len(data) > limit:
            raise BadSample(Reason.OVERSIZED_TEXT, f"more than {limit} bytes")
    return bytes(data)
