"""The reasons of rejects in words, for people who have not read the README."""

from __future__ import annotations

from hpcdata.samples import Reason

_WORDS = {
    Reason.BAD_EXAMPLE: "an encoder made something that cannot be stored",
    Reason.BAD_RECORD: "a field is missing, or holds something else than it should",
    Reason.BAD_JSON: "no JSON",
    Reason.CHANGED_INPUT: "its file was removed or changed after the run was planned",
    Reason.CRASH: "it ended the process that decoded it, several times",
    Reason.DAMAGED_ARCHIVE: "its archive or row group is damaged",
    Reason.EMPTY_IMAGE: "a picture of 0 bytes",
    Reason.EMPTY_TEXT: "a text without a letter",
    Reason.IMAGE_WITHOUT_MARKER: "more pictures than markers of them in its text",
    Reason.MARKER_WITHOUT_IMAGE: "more markers of pictures in its text than pictures",
    Reason.MISSING_IMAGE: "no picture, or its file is not there",
    Reason.MISSING_TEXT: "no text",
    Reason.NOTHING_TO_LEARN: "no turn that a model is trained on",
    Reason.OUTSIDE_ROOT: "a path that leads out of the folder of pictures",
    Reason.OVERSIZED_IMAGE: "a picture of more bytes or pixels than the limit",
    Reason.OVERSIZED_RECORD: "a record of more bytes than the limit",
    Reason.OVERSIZED_TEXT: "a text of more bytes than the limit",
    Reason.SHA256_DIFFERS: "a picture of other bytes than its row says",
    Reason.TOO_LONG: "longer than the limit",
    Reason.TOO_MANY_IMAGES: "more pictures than the limit",
    Reason.TRUNCATED: "a file that ends too early",
    Reason.UNREADABLE_FILE: "a disk that did not give its file",
    Reason.UNREADABLE_IMAGE: "a picture that cannot be decoded",
    Reason.UNREADABLE_TEXT: "a text that is no Unicode",
    Reason.UNSUPPORTED_MEDIA: "videos, sound, or pictures of a kind that is not read",
    Reason.URL_FAILED: "its host was busy, silent or cut off: it may come another time",
    Reason.URL_GONE: "its host says that it is gone",
    Reason.URL_REFUSED: "its host refuses it, or what came is no picture",
}


def words(reason: str) -> str:
    """Of any reason, those of later versions too."""
    return next((text for known, text in _WORDS.items() if known == reason), reason.replace("_", " "))
