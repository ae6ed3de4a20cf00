"""Where the pictures of records lie: relative to a folder, and nowhere outside of it unless that is allowed."""

from __future__ import annotations

import os

from hpcdata.samples import BadSample, Blob, ImagePart, Place, Reason
from hpcdata.sources.base import InputFile, Options, clean_name
from hpcdata.sources.pictures.fields import Named

_MOST_OF_A_NAME = 200
_ROOT = "data.image_root (the folder of the file that names it, unless it is set)"


def image_part(named: Named, file: InputFile, options: Options) -> ImagePart:
    """The picture, not yet read. Raises BadSample for one that is needed and on the web, or outside of `file.roots`."""
    if named.url and options.needs_image:
        message = f"{named.field} is {shown(named.url)}: pictures are not fetched; download them before"
        raise BadSample(Reason.UNSUPPORTED_MEDIA, message)
    if named.path:
        return picture(named.path, file, is_read=options.needs_image or options.keeps_members)
    return ImagePart(blob=Blob(path="", data=named.data or b""))


def picture(name: str, file: InputFile, *, is_read: bool = True) -> ImagePart:
    """The picture at a path that a record names, which starts from `file.base` where it is relative."""
    path = os.path.join(file.base, name)
    if not file.roots:
        return ImagePart(blob=Blob(path=path, name=shown(name)))
    place = Place(roots=file.roots, words=_ROOT)
    if is_read and not place.holds(os.path.normpath(path)):
        message = f"{shown(name)} lies outside of {_ROOT}; data.outside_images=read allows it"
        raise BadSample(Reason.OUTSIDE_ROOT, message)
    return ImagePart(blob=Blob(path=path, name=shown(name), place=place))


def shown(name: str) -> str:
    """A file's name as the record gives it, fit for a message."""
    return clean_name(name.encode("utf-8", "backslashreplace"))[:_MOST_OF_A_NAME]
