"""The `metadata.csv` of an imagefolder of Hugging Face as JSON lines: a column `file_name`, and texts beside it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_beginning
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.limits import bounded, most_records, most_unpacked, require_few_records
from hpcdata.sources.streams import chunks

NAME = "metadata.csv"
_NAMES = "file_name"
_MOST_BYTES_OF_A_HEADER = 1 << 16
_MOST_COLUMNS = 1000
MOST_OF_A_LINE = 1 << 26


def is_metadata(path: str) -> bool:
    """Whether a file has that name and that column. Raises UserError when it cannot be read."""
    if os.path.basename(path).lower() != NAME:
        return False
    with refusing_faults(path):
        beginning = read_beginning(path, _MOST_BYTES_OF_A_HEADER).decode("utf-8-sig", "replace")
    return _NAMES in next(csv.reader([re.split(r"[\r\n]", beginning, maxsplit=1)[0]]), [])


def flatten_csv(file: InputFile, out_path: str) -> None:
    """Writes the rows as lines. Raises UserError for what is no CSV in UTF-8."""
    partial = f"{out_path}.{os.getpid()}.partial"
    with open(partial, "w", encoding="ascii") as out:
        with refusing_faults(file.path):
            reader = csv.DictReader(lines_of(file), restkey="(more)")
            size, written = os.stat(file.path).st_size, 0
            try:
                if len(names := reader.fieldnames or ()) > _MOST_COLUMNS:
                    raise UserError(f"{file.path} has {len(names)} columns, the limit is {_MOST_COLUMNS}")
                for number, row in enumerate(reader, 1):
                    require_few_records(file.path, number, most_records(size))
                    written += out.write(json.dumps(row) + "\n")
                    if written > most_unpacked(size):  # short rows of many columns
                        raise UserError(f"{file.path} has rows of far fewer values than its {len(names)} columns")
            except (csv.Error, UnicodeDecodeError) as error:
                raise UserError(f"{file.path} is no CSV in UTF-8 behind line {reader.line_num}: {error}") from None
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)


def lines_of(file: InputFile) -> Iterator[str]:
    """With their line breaks; a break in a quoted field ends a line too, as the csv module wants it."""
    encoding = "utf-8-sig"
    for line in byte_lines(file):
        yield line.decode(encoding)
        encoding = "utf-8"


def byte_lines(file: InputFile) -> Iterator[bytes]:
    """The same as bytes. Raises UserError for lines of more than 64 MiB, of which the csv module makes 512."""
    parts, size = list[bytes](), 0
    for chunk in bounded(file, chunks(file)):
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line, b"\n"])
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MOST_OF_A_LINE:
            raise UserError(f"{file.path} has a line of more than {MOST_OF_A_LINE} bytes: is it a table?")
    if size:
        yield b"".join(parts)
