"""A committed shard of converted records, read back sample by sample."""

from __future__ import annotations

from hpcdata.shards.stored import StoredStream, text_of
from hpcdata.stages.convert.making import Converted


class Stored(StoredStream):
    def sample(self, row: int) -> Converted:
        return Converted(
            index=int(self.index[row]),
            key=self.key(row),
            line=self.data(row),
            stem=text_of(self.columns["samples/first_stem.memmap"], self.columns["stems/bytes.memmap"], row),
            notes=int(self.columns["samples/notes.memmap"][row]),
            files=tuple((item.name, item.sha256) for item in self.files(row)),
        )
