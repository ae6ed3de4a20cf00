"""A folder of pictures by its listing: a picture and its sidecar, as `folder` has listed them."""

from __future__ import annotations

import json
import os
from typing import Any

from hpcdata.base.errors import Failed
from hpcdata.base.reads import read_beginning
from hpcdata.samples import BadSample, ImagePart, Member, Reason, TextPart
from hpcdata.sources import records
from hpcdata.sources.base import InputFile, Options, decoded_text
from hpcdata.sources.pictures import places


def load(line: bytes) -> dict[str, Any]:
    """A line that `list_folder` wrote: file names may hold surrogates where they are not UTF-8. Raises UserError."""
    try:
        entry = json.loads(line)
        if isinstance(entry["key"], str) and all(isinstance(entry[name], str | None) for name in ("image", "text")):
            return entry
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise Failed("the listing of a folder in inputs/ is damaged: plan again into a new output directory")


def members(entry: dict[str, Any], file: InputFile) -> tuple[Member, ...]:
    """A picture and its sidecar, as far as they are there."""
    names = [name for name in (entry["image"], entry["text"]) if name is not None]
    return tuple(Member(extension=records.extension(name), blob=places.picture(name, file).blob) for name in names)


def parts(entry: dict[str, Any], file: InputFile, options: Options) -> records.Parts:
    """The parts of a picture and its sidecar, which is read now."""
    found: list[TextPart | ImagePart] = []
    if options.needs_text:
        if entry["text"] is None:
            raise BadSample(Reason.MISSING_TEXT, "no text file of the same name")
        found.append(TextPart(text=_sidecar_text(file.base, entry["text"], options)))
    if options.needs_image:
        if entry["image"] is None:
            raise BadSample(Reason.MISSING_IMAGE, "no image of the same name")
        found.append(places.picture(entry["image"], file))
    return records.selected(found, options)


def _sidecar_text(base: str, name: str, options: Options) -> str:
    path, limit = os.path.join(base, name), options.max_record_bytes
    try:
        data = read_beginning(path, limit + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise BadSample(Reason.MISSING_TEXT, f"{places.shown(name)} cannot be read: {type(error).__name__}") from None
    if len(data) > limit:
        raise BadSample(Reason.OVERSIZED_TEXT, f"the text file has more than {limit} bytes")
    if path.lower().endswith(".json"):
        return records.text_of_json(data, options)
    return decoded_text(data, what="the text file")
