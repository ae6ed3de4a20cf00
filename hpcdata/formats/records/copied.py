"""A dataset of copied records, opened to be laid out for another system: its parts, and where each sample lies.

Nothing of the records is held but a few numbers of the part in work: 24 bytes a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hpcdata.base.errors import Failed, UserError
from hpcdata.dataset.manifest import Manifest, read_manifest
from hpcdata.shards.schema import FILES
from hpcdata.shards.shard import ListedFile, ShardSummary, read_listing, read_summary
from hpcdata.shards.stored import key_of, read_columns

STAGES = ("copy", "fetch")
"""Those that write records as they are: one stream a shard, and files beside it."""


class Copied:
    """Raises UserError for what is no combined dataset of copied records."""

    def __init__(self, path: str | Path) -> None:
        self.manifest: Manifest = read_manifest(path)
        if self.manifest.stage not in STAGES:
            what = f"what stage={self.manifest.stage} wrote" if self.manifest.stage else "tokens"
            raise UserError(
                f"{path} holds {what}, and this export is for records that stage=copy has copied or fetched"
            )
        folder = self.manifest.folder
        self.parts = [CopiedPart(folder=folder / part.path) for part in self.manifest.parts if part.samples]
        self.form = self.parts[0].form if self.parts else "tar"


@dataclass(frozen=True, kw_only=True, eq=False)
class CopiedPart:
    """The samples of one shard: a stream of bytes, and files beside it where its form is `jsonl`."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the shard, unique in the dataset: `00003-of-00064`."""
        return self.folder.name

    @property
    def form(self) -> str:
        """`tar`, `jsonl` or `arrow`."""
        return self.stream.suffix[1:]

    @cached_property
    def stream(self) -> Path:
        (stream,) = (item.path for item in self._summary.header.schema.streams)
        return self.folder / stream

    @cached_property
    def index(self) -> np.ndarray:
        """[num_samples] int64: number of each sample in the plan, unique in the dataset."""
        return np.asarray(self._columns["samples/index.memmap"])

    @cached_property
    def first_byte(self) -> np.ndarray:
        """[num_samples] int64: where each begins in the stream."""
        return np.asarray(self._columns["samples/first_byte.memmap"])

    @cached_property
    def num_bytes(self) -> np.ndarray:
        return np.asarray(self._columns["samples/num_bytes.memmap"])

    @property
    def bounds(self) -> np.ndarray:
        """[num_samples + 1] int64: where each begins in the stream, and where the last ends: there are no gaps."""
        return np.append(self.first_byte, self.first_byte[-1] + self.num_bytes[-1])

    @property
    def stream_sha256(self) -> str:
        return self._summary.files[self.stream.relative_to(self.folder).as_posix()]

    def files(self) -> Iterator[ListedFile]:
        """The files beside the stream, in the order of the samples that they belong to."""
        with _damaged(self.folder):
            yield from read_listing(self.folder)

    def file(self, name: str) -> Path:
        return self.folder / FILES / name

    def __len__(self) -> int:
        return len(self.index)

    def key(self, row: int) -> str:
        return key_of(self._columns, row)

    def samples(self) -> Iterator[bytes]:
        """The bytes of each sample, in order. Raises Failed where the stream is shorter than its columns say."""
        with open(self.stream, "rb") as stream:
            for first, size in zip(self.first_byte.tolist(), self.num_bytes.tolist(), strict=True):
                stream.seek(first)  # no system call where it stands there
                data = stream.read(size)
                if len(data) != size:
                    raise Failed(f"{self.stream} ends in a sample: run hpcdata verify")
                yield data

    @cached_property
    def _summary(self) -> ShardSummary:
        with _damaged(self.folder):
            return read_summary(self.folder)

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        with _damaged(self.folder):
            return read_columns(self.folder, self._summary.header.schema, self._summary.sizes)


@contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    """Inside, a ValueError says what is wrong with the files of a shard."""
    try:
        yield
    except ValueError as error:
        raise Failed(f"{folder}: {error}; run hpcdata verify") from None
