"""CSV and TSV as JSON lines: an object a row, all of its values are texts."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.custom.mapping import Mapping
from hpcdata.sources.limits import most_records, most_unpacked, require_few_records
from hpcdata.sources.pictures.metadata import MOST_OF_A_LINE, lines_of

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst")
_MOST_COLUMNS = 1000


def flatten_table(file: InputFile, out_path: str, mapping: Mapping) -> None:
    """Writes the rows as lines. Raises UserError, with the line, for what is no table in UTF-8."""
    partial = f"{out_path}.{os.getpid()}.partial"
    with _long_fields(), open(partial, "w", encoding="ascii") as out:
        with refusing_faults(file.path):
            size, written = os.stat(file.path).st_size, 0
            for number, row in enumerate(_rows(file, mapping), 1):
                require_few_records(file.path, number, most_records(size))
                written += out.write(json.dumps(row) + "\n")
                if written > most_unpacked(size):
                    raise UserError(f"{file.path} has rows of far fewer values than it has columns")
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module has one limit for all that a process reads."""
    before = csv.field_size_limit(MOST_OF_A_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(file: InputFile, mapping: Mapping) -> Iterator[dict[str, str] | list[str]]:
    """A list of its values for a row that has not as many as there are columns: one reject."""
    delimiter = mapping.delimiter or ("\t" if ".tsv" in file.path.lower() else ",")
    quoting: Any = csv.QUOTE_MINIMAL if mapping.quotes else csv.QUOTE_NONE
    reader = csv.reader(lines_of(file), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        names = list(mapping.columns) or [name.strip() for name in next(reader, [])]
        if len(names) > _MOST_COLUMNS or len(set(names)) != len(names):
            found = f"{len(names)} columns" if len(names) > _MOST_COLUMNS else "a column twice"
            raise UserError(f"{file.path} has {found} in its first line")
        for row in reader:
            if not row:
                continue
            yield dict(zip(names, row, strict=True)) if len(row) == len(names) else row
    except UnicodeDecodeError:
        raise UserError(
            f"{file.path} is not UTF-8 (read to line {reader.line_num}): convert it, as iconv does"
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{file.path}, line {reader.line_num}: {error}; in a mapping, quotes: false takes quotes as letters"
        ) from None
