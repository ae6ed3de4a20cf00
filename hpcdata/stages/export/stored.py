"""A committed shard of an export, read back: its pieces have the bytes that its columns say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens.base import ExportedPart, whole_of
from hpcdata.shards.recovered import read_recovered
from hpcdata.shards.reject_ledger import read_rejects
from hpcdata.shards.schema import FILES
from hpcdata.shards.shard import ShardSummary, read_listing, read_summary
from hpcdata.shards.stored import read_columns

LEFT_OUT = "left_out.jsonl"
_CHUNK = 2**20


class Stored:
    def __init__(self, folder: Path, summary: ShardSummary | None = None) -> None:
        """Raises ValueError when the shard is damaged."""
        self._folder, self._summary = folder, summary or read_summary(folder)
        self.columns = read_columns(folder, self._summary.header.schema, self._summary.sizes)
        self.index = np.asarray(self.columns["samples/index.memmap"])

    def sha256_of_row(self, row: int) -> bytes:
        """Of the piece that holds it."""
        ends = np.cumsum(self.columns["pieces/num_rows.memmap"])
        return self.columns["pieces/sha256.memmap"][int(np.searchsorted(ends, row, side="right"))].tobytes()

    def digests(self) -> list[bytes]:
        """Of each piece, as its column says."""
        return [row.tobytes() for row in self.columns["pieces/sha256.memmap"]]

    def problems(self) -> list[str]:
        """Where bytes are others."""
        said = self.digests()
        try:
            found = list(self._found())
        except FileNotFoundError as error:
            return [f"{error.filename} is gone"]
        if len(found) != len(said):
            return [f"{len(found)} pieces, its columns say {len(said)}"]
        return [
            f"piece {n} is not what its columns say"
            for n, pair in enumerate(zip(found, said, strict=True))
            if len(set(pair)) > 1
        ]

    def _found(self) -> Iterator[bytes]:
        """The sha256 of each piece, by its bytes."""
        sizes, schema = self.columns["pieces/num_bytes.memmap"].tolist(), self._summary.header.schema
        if schema.has_files:
            for item in read_listing(self._folder):
                with open(self._folder / FILES / item.name, "rb") as file:
                    yield _sha256(file, item.size)
            return
        with ExitStack() as stack:
            path = self._folder / schema.streams[0].path if schema.streams else self._whole()
            if path is None:  # the dataset is elsewhere: its export is verified by itself
                yield from self.digests()
                return
            if not sizes:
                return
            begins = np.cumsum([0, *sizes]).tolist() if schema.streams else self.columns["pieces/first_byte.memmap"]
            file = stack.enter_context(open(path, "rb"))
            for begin, size in zip(begins, sizes, strict=False):
                file.seek(int(begin))
                yield _sha256(file, size)

    def _whole(self) -> Path | None:
        """The file that all shards fill; None where the shard lies in no run."""
        run = next((folder for folder in self._folder.absolute().parents if (folder / "plan.json").is_file()), None)
        return run and whole_of(run, self._summary.header.fingerprint)


def exported_parts(dataset: Path, run: Path, names: list[str]) -> list[ExportedPart]:
    """names: the paths of its parts."""
    folders = [dataset / name for name in names]
    return [ExportedPart(folder=folder, summary=read_summary(folder), run=run) for folder in folders]


def write_rejects(building: Building, parts: Sequence[ExportedPart]) -> None:
    """Rows that the export does not hold, with key and reason, in `left_out.jsonl`."""
    back = read_recovered(part.folder for part in parts)
    with building.open(LEFT_OUT) as file:
        for part in parts:
            for row in read_rejects(part.folder):
                if row.index not in back:
                    line = json.dumps(vars(row), ensure_ascii=False) + "\n"
                    file.append(line.encode(errors="replace"))


def _sha256(file: BinaryIO, size: int) -> bytes:
    hasher = hashlib.sha256()
    while size and (chunk := file.read(min(size, _CHUNK))):
        hasher.update(chunk)
        size -= len(chunk)
    return hasher.digest()
