"""A committed shard of converted records, read back sample by sample."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from hpcdata.shards.shard import ShardSummary, read_listing, read_summary
from hpcdata.shards.stored import key_of, read_columns
from hpcdata.stages.convert.making import Converted


class Stored:
    def __init__(self, folder: Path, summary: ShardSummary | None = None) -> None:
        """Raises ValueError when the shard is damaged."""
        summary = summary or read_summary(folder)
        schema = summary.header.schema
        self._folder, (self._stream,) = folder, (stream.path for stream in schema.streams)
        self._columns = read_columns(folder, schema, summary.sizes)
        self.index = np.asarray(self._columns["samples/index.memmap"])
        self._files: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for item in read_listing(folder):
            self._files[int(item.name.partition(".")[0])].append((item.name, item.sha256))

    def sample(self, row: int) -> Converted:
        first, size = (int(self._columns[f"samples/{name}.memmap"][row]) for name in ("first_byte", "num_bytes"))
        with open(self._folder / self._stream, "rb") as stream:
            stream.seek(first)
            line = stream.read(size)
        index = int(self.index[row])
        return Converted(
            index=index,
            key=key_of(self._columns, row),
            line=line,
            stem=stem_of_row(self._columns, row),
            notes=int(self._columns["samples/notes.memmap"][row]),
            files=tuple(self._files.get(index, ())),
        )


def stem_of_row(columns: dict[str, np.ndarray], row: int) -> str:
    starts, stems = columns["samples/first_stem.memmap"], columns["stems/bytes.memmap"]
    end = int(starts[row + 1]) if row + 1 < len(starts) else len(stems)
    return stems[int(starts[row]) : end].tobytes().decode()
