"""A committed shard of copied records, read back sample by sample."""

from __future__ import annotations

from hpcdata.shards.schema import FILES
from hpcdata.shards.stored import StoredStream
from hpcdata.stages.copy.forms import Written


class Stored(StoredStream):
    def sample(self, row: int) -> Written:
        files = tuple((item.name, (self.folder / FILES / item.name).read_bytes()) for item in self.files(row))
        return Written(index=int(self.index[row]), key=self.key(row), data=self.data(row), files=files)
