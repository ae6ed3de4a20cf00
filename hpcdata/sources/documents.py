"""Plain text files, one document a file: `.txt`, `.txt.gz`, `.txt.zst`."""

from __future__ import annotations

from collections.abc import Iterator

from hpcdata.samples import BadSample, Blob, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources.base import InputFile, Options, Scan, changed_since_planned, decoded_text
from hpcdata.sources.streams import chunks


def scan(file: InputFile, *, every: int, options: Options) -> Scan:
    """One sample, whatever is in the file."""
    del file, options
    return Scan(num_samples=1, every=every, cuts=(0,))


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    del scan
    if first + count > 1:
        raise changed_since_planned(file, got=1, expected=first + count)
    if count == 0:
        return
    key = f"{file.label}#0"
    try:
        text = decoded_text(_whole(file, options.max_record_bytes), what="the document")
        members = (Member(extension="txt", blob=Blob(path="", data=text.encode())),) if options.keeps_members else ()
        yield Sample(position=0, key=key, parts=(TextPart(text=text),), members=members)
    except BadSample as bad:
        yield Reject(position=0, key=key, reason=bad.reason, message=bad.message)


def _whole(file: InputFile, limit: int) -> bytes:
    data = bytearray()
    for chunk in chunks(file):
        data += chunk
        if len(data) > limit:
            raise BadSample(Reason.OVERSIZED_TEXT, f"more than {limit} bytes")
    return bytes(data)
