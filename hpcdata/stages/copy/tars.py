"""The tar bytes of one sample, by the webdataset library: the same at any time, on any machine."""

from __future__ import annotations

import io
from collections.abc import Mapping

from webdataset import TarWriter

BLOCK_BYTES, RECORD_BYTES = 512, 10240
"""A tar ends with two blocks of zeros, and is a whole number of records."""


def sample_bytes(key: str, members: Mapping[str, bytes]) -> bytes:
    """The members `key.extension` of a sample, in the order of their extensions, without the end of an archive."""
    out = io.BytesIO()
    writer = TarWriter(out, encoder=False, compress=False, keep_meta=True, mtime=0, format="PAX_FORMAT")
    writer.write({"__key__": key, **members})
    size = writer.tarstream.offset
    writer.close()
    out.truncate(size)
    return out.getvalue()
