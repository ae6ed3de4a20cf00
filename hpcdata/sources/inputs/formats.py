"""Which format a file has: by its name, and by its content where a name lies about compression."""

from __future__ import annotations

import re

from hpcdata.base.errors import UserError
from hpcdata.media.kinds import IMAGE_EXTENSIONS
from hpcdata.samples import BadSample
from hpcdata.sources.base import RECORDS, InputFile, refusing_faults
from hpcdata.sources.json.shapes import SNIFF_BYTES, find_shape
from hpcdata.sources.streams import PARQUET, chunks, codec_of, is_tar_header

TARS = (".tar", ".tar.gz", ".tgz")
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
_ANNOTATIONS = re.compile(
    rb'"(questions)"\s*:\s*\[\s*\{[^{}]*"question_id"|"(images)"\s*:\s*\[\s*\{[^{}]*"(?:file_name|coco_url|license)"\s*:'
    rb'|"(licenses|licenes)"\s*:\s*\['
)
_MOST_OF_A_HEAD = 1 << 16
TABLE, ARROW = "table", ".arrow"
_SAMPLE_FIELDS = re.compile(
    rb'"(image|image_path|conversations|text_prompt|caption)"\s*:|'
    rb'"(images|img|img_path|image_url|messages|videos?|audios?|(?:image|img)s?(?:_path)?_?\d{1,2})"\s*:'
    rb'\s*(?!null|""|\[\s*\]|\{\s*\})["\[{]|'
    rb'"file_name"\s*:\s*"[^"]*\.(%s)"' % b"|".join(extension.encode() for extension in sorted(IMAGE_EXTENSIONS)),
    re.IGNORECASE,
)
TABLES = "parquet"
"""The value of `data.source` that takes Parquet alone, all of it as records."""


def table_format(path: str) -> str:
    return TABLE + codec_of(path).removeprefix(PARQUET)


def is_tar(name: str) -> bool:
    return name.endswith(TARS)


def tar_format(path: str) -> str:
    codec = codec_of(path, is_tar=True)
    if codec == PARQUET:
        raise UserError(f"{path} holds Parquet, and is named as a tar: rename it")
    if codec == ".zst":
        raise UserError(f"{path} holds a zstd stream, and tars are read plain or gzipped: decompress it with zstd -d")
    return "tar" + codec


def format_of_content(path: str, source: str) -> str:
    """Of a file whose name has no ending that is known for the source. Raises UserError."""
    codec = codec_of(path)
    if codec == PARQUET and source in ("auto", "text", TABLES):
        return RECORDS if source == TABLES else PARQUET
    beginning = _beginning(InputFile(path=path, label="", format="text" + codec.removeprefix(PARQUET)))
    if is_tar_header(beginning) and source in ("auto", "webdataset"):
        return tar_format(path)
    if beginning.lstrip()[:1] in (b"{", b"[") and source in ("auto", "jsonl", "text"):
        return json_format(path, source)
    what = "its bytes no mark" if beginning else "there is not a byte in it"
    raise UserError(f"{path} is no input of data.source={source}: its name has no known ending, and {what}")


def json_format(path: str, source: str) -> str:
    codec = codec_of(path)
    if codec == PARQUET:
        if source == "jsonl":
            raise UserError(f"{path} holds Parquet, whatever its name says: it is read with data.source=text")
        return PARQUET
    beginning = _beginning(InputFile(path=path, label="", format="text" + codec))
    head = beginning[:_MOST_OF_A_HEAD]
    if path.lower().endswith(".json") and head.lstrip()[:1] == b"{" and (found := _ANNOTATIONS.search(head)):
        kind = "vqa" if found[1] else "coco"
        raise UserError(f"{path} holds annotations in one object, as COCO and VQA v2 do: use data.source={kind}")
    is_samples = source == "jsonl" or (source == "auto" and _SAMPLE_FIELDS.search(beginning))
    if find_shape(path, beginning) == "array":
        return ("array" if is_samples else "textarray") + codec
    return ("jsonl" if is_samples else "text") + codec


def _beginning(file: InputFile) -> bytes:
    beginning = b""
    stream = chunks(file)
    try:
        with refusing_faults(file.path):
            while len(beginning) < SNIFF_BYTES and (chunk := next(stream, b"")):
                beginning += chunk
    except BadSample:
        pass
    finally:
        stream.close()
    return beginning[:SNIFF_BYTES]
