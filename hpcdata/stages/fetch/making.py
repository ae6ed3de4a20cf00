"""A record and its pictures -> what is written of it: a sample of a tar, or a line and its files.

What named pictures is now `image`, the URLs are in `url`, and `sha256` is that of the bytes that came.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcdata.media.kinds import extension_of
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Batch, Reason, Sample
from hpcdata.shards.one_by_one import each
from hpcdata.sources.base import TEXT_FIELDS, is_plain
from hpcdata.sources.pictures.fields import IMAGE_FIELDS
from hpcdata.sources.records import load, numbered
from hpcdata.stages.copy.forms import Written, as_json_line, as_tar
from hpcdata.stages.copy.making import Copied
from hpcdata.stages.fetch.fetching import wanted
from hpcdata.stages.fetch.outcomes import sha256_of

_REPLACED = {*IMAGE_FIELDS, "url", "sha256"} - {"file_name"}


class Making:
    """Nothing is loaded: pictures are there when a batch is made."""

    device, num_ahead = "none", 0

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        config = plan.config
        self._config, self._is_lines = config.fetch, config.fetch.format == "jsonl"
        self._texts = (config.data.text_field,) if config.data.text_field else TEXT_FIELDS

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Copied]:
        samples, rejects = each(batch, self._written, first_index=first_index, source=source)
        return lambda: Copied(samples=samples, rejects=rejects)

    def _written(self, record: Sample, prepared: list[np.ndarray], index: int) -> Written:
        pieces = [bytes(array) for array in prepared]
        pictures = pieces[len(record.members) :]
        if not pictures:
            raise BadSample(Reason.MISSING_IMAGE, "the record has no JSON with a URL")
        fields = load(pieces[0])
        assert isinstance(fields, dict)
        urls, _ = wanted(fields, self._config)
        fields = _with_pictures(fields, urls, pictures)
        names = numbered([extension_of(data) for data in pictures])
        others = {member.extension: data for member, data in zip(record.members[1:], pieces[1:], strict=False)}
        members = {**others, **dict(zip(names, pictures, strict=True))}
        if self._is_lines:
            return as_json_line(record, index, {"json": _json(fields), **members})
        text = next((fields[name] for name in self._texts if is_plain(fields.get(name))), None)
        texts = {"txt": text.encode()} if text is not None else {}
        return as_tar(record, index, {"json": _json(fields), **texts, **members})


def _with_pictures(fields: dict[str, Any], urls: list[str], pictures: list[bytes]) -> dict[str, Any]:
    kept = {name: value for name, value in fields.items() if name not in _REPLACED}
    sums = [sha256_of(data) for data in pictures]
    return {**kept, "url": urls[0] if len(urls) == 1 else urls, "sha256": sums[0] if len(sums) == 1 else sums}


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()
