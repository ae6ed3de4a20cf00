"""Liquid's Hugging Face folders: pairs and texts with equal columns, of strings and one number.

    data_type        `image_text` or `text_pretrain`
    text             the text as it was kept (`text.keep_raw`)
    length           its characters, and four for each code
    vqcode_512       the 1024 codes of 512 x 512 pixels as JSON, row by row and unshifted; `no` where there is none
    vqcode_multi768  those of a picture of one of several sizes (`data.sizes`, `data.max_aspect_ratio`), else `no`
    width, height    the pixels of such a picture, as strings; else `no`

Liquid joins several such folders, and takes the first rows of each: so rows are shuffled here, by seed 42 unless
another is given. Two things are ours, as Liquid announced them and has published nothing: codes of several sizes, and
conversations as one text each (`export.conversations=sft`: types `image_text_sft` and `text_sft`, a line `USER: ...` or
`ASSISTANT: ...` for each turn, `<image>` where the picture stands). Liquid's collator knows neither of these two types,
and would learn their text alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats import arrow
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.rows import Rows
from hpcdata.native.arrays import before_in_row
from hpcdata.samples import Kind, RawText, Reason, Role
from hpcdata.shards.schema import Column

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

NO = "no"
SEED, NUM_SHARDS = 42, 256
"""Those of Liquid's own scripts."""
FEWEST_ROWS, MOST_BYTES = 1000, 2**30
"""Of a file, where no number of files is asked for."""
PIECE_BYTES = 4 * 2**20
"""Of a record batch, unless another size is asked for: what is made at once stays in a cache."""
RESOLUTION = 512
AROUND = 1027
"""Ids of a pair beside its text and bos: 1024 codes, and what Liquid puts around them."""
CHARACTERS_A_CODE = 4
FEATURES = {
    "data_type": arrow.value("string"),
    "text": arrow.value("string"),
    "length": arrow.value("int64"),
    "vqcode_512": arrow.value("string"),
    "vqcode_multi768": arrow.value("string"),
    "width": arrow.value("string"),
    "height": arrow.value("string"),
}
_SPEAKERS = {Role.SYSTEM: "SYSTEM", Role.USER: "USER", Role.ASSISTANT: "ASSISTANT"}
_IMAGE = "<image>"
_LINES_TO_SPACES = bytes.maketrans(b"\n", b" ")
_OTHER_BYTES_A_ROW = 200


class Liquid:
    name = "liquid"
    words = "a Hugging Face folder with the columns that Liquid reads"
    keys = ("conversations", "max_length", "num_shards")
    ending, has_stream, has_files = ".arrow", True, False
    columns = (Column(table="long", name="row", dtype="int64"),)
    """Places of pairs whose texts leave no room for all codes."""

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        settling.require_texts(manifest, "format liquid")
        if manifest.counts.images and not has_several_sizes(manifest) and manifest.layout.resolution != RESOLUTION:
            raise UserError(
                f"{manifest.folder} has pictures of {manifest.layout.resolution} pixels, and Liquid reads codes of "
                f"{RESOLUTION}: make it with +experiments=liquid"
            )
        if export.max_length is not None and manifest.text is None:
            raise UserError(
                "export.max_length counts the ids of texts, and the dataset has none: make it with text.tokenizer=..., "
                "the tokenizer of the model"
            )
        if export.num_shards is not None and export.num_shards < 1:
            raise UserError(f"export.num_shards={export.num_shards}: expected a number above 0")
        num_rows = manifest.num_samples
        of_bytes = math.ceil(num_rows * self.bytes_a_row(export, manifest) / MOST_BYTES)
        num_shards = max(of_bytes, min(NUM_SHARDS, math.ceil(num_rows / FEWEST_ROWS)))
        return dataclasses.replace(
            export,
            shuffle_seed=SEED if export.shuffle_seed is None else export.shuffle_seed,
            num_shards=num_shards if export.num_shards is None else export.num_shards,
            file_bytes=PIECE_BYTES if export.file_bytes == ExportConfig.file_bytes else export.file_bytes,
        )

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        counts = manifest.counts
        return 6 * counts.image_tokens / max(1, counts.written) + _OTHER_BYTES_A_ROW

    def open(self, context: Context) -> _Writer:
        return _Writer(context)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        streams = [stream for part in parts if (stream := part.stream) is not None]
        fingerprint = hashlib.sha256("".join(stream.sha256 for stream in streams).encode()).hexdigest()
        arrow.write_folder(building, FEATURES, streams, fingerprint=fingerprint)
        num_long = sum(len(part.columns["long/row.memmap"]) for part in parts)
        if num_long:
            log.warning(
                "%d pairs have more than %s ids with their codes: Liquid cuts them behind as many, and loses codes",
                num_long,
                export.max_length,
            )
        return {
            "shuffle_seed": export.shuffle_seed,
            "conversations": export.conversations,
            "max_length": export.max_length,
            **({"pairs_beyond_max_length": num_long} if export.max_length else {}),
        }


def has_several_sizes(manifest: Manifest) -> bool:
    """Whether pictures may have other sizes than one square."""
    config = manifest.extra.get("config")
    data = config.get("data") if isinstance(config, dict) else None
    return isinstance(data, dict) and (data.get("sizes") or data.get("max_aspect_ratio")) is not None


class Picture(NamedTuple):
    codes: np.ndarray
    """[height * width] int32."""
    height: int
    width: int
    """Both in codes."""
    place: int
    """Which span of its row it is."""


class _Writer:
    def __init__(self, context: Context) -> None:
        self._export, self._shard_size = context.export, context.shard_size
        self._schema = arrow.schema_of(FEATURES)
        manifest = context.dataset.manifest
        self._has_several_sizes = has_several_sizes(manifest)
        self._downsample = manifest.image.downsample if manifest.image else 1

    def write(self, rows: Rows) -> Written:
        found, rejects, long = [], [], []
        most = self._most_ids(rows)
        for number, (texts, pictures) in enumerate(zip(rows.dataset.texts(rows.row), _pictures(rows), strict=True)):
            if bad := self._refused(texts, pictures):
                rejects.append((number, *bad))
                continue
            found.append(self._row(texts, pictures))
            if pictures and most is not None and most[number]:
                long.append(int(rows.position[number]))
        head = [arrow.head(self._schema)] if rows.start % self._shard_size == 0 else []
        return Written(
            stream=b"".join([*head, *map(arrow.body, self._batches(found))]),
            rejects=rejects,
            columns={"long/row.memmap": np.array(long, "<i8")},
        )

    def _refused(self, texts: Sequence[RawText], pictures: Sequence[Picture]) -> tuple[Reason, str] | None:
        if len(pictures) > 1:
            return Reason.TOO_MANY_IMAGES, f"{len(pictures)} pictures, Liquid takes one"
        if not texts:
            return Reason.MISSING_TEXT, "no text"
        if _is_talk(texts) and self._export.conversations == "reject":
            message = "a conversation, and Liquid knows captions and texts: export.conversations=sft writes it as text"
            return Reason.BAD_EXAMPLE, message
        if not pictures and texts[0].data == NO.encode() and len(texts) == 1:
            return Reason.BAD_EXAMPLE, f"the text is {NO!r}, by which Liquid says that there is none"
        return None

    def _row(self, texts: Sequence[RawText], pictures: Sequence[Picture]) -> tuple[Any, ...]:
        """Values in the order of `FEATURES`."""
        is_talk = _is_talk(texts)
        text = talk(texts, pictures) if is_talk else "\n".join(item.text for item in texts)
        if not pictures:
            return ("text_sft" if is_talk else "text_pretrain", text, len(text), NO, NO, NO, NO)
        (picture,) = pictures
        kind = "image_text_sft" if is_talk else "image_text"
        length = len(text) + CHARACTERS_A_CODE * len(picture.codes)
        codes = as_json(picture.codes)
        if not self._has_several_sizes:
            return kind, text, length, codes, NO, NO, NO
        width, height = (str(side * self._downsample) for side in (picture.width, picture.height))
        return kind, text, length, NO, codes, width, height

    def _batches(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[pa.RecordBatch]:
        """As many rows at a time as a column of strings can hold."""
        import pyarrow as pa

        start, size = 0, 0
        for number, row in enumerate(rows):
            more = 4 * len(row[1]) + len(row[3]) + len(row[4])
            if size + more > arrow.MOST_IN_BATCH and number > start:
                yield pa.RecordBatch.from_arrays(_arrays(rows[start:number]), schema=self._schema)
                start, size = number, 0
            size += more
        if start < len(rows):
            yield pa.RecordBatch.from_arrays(_arrays(rows[start:]), schema=self._schema)

    def _most_ids(self, rows: Rows) -> np.ndarray | None:
        """[num_rows] bool: whether the ids of the texts leave no room for all codes; None where nobody asks."""
        if self._export.max_length is None:
            return None
        table = rows.table.of_kind(Kind.TEXT)
        num_ids = np.bincount(table.row, table.length, len(rows))
        return num_ids + 1 + AROUND > self._export.max_length


def as_json(codes: np.ndarray) -> bytes:
    """The same as `json.dumps(codes.tolist())`, a space behind each comma, six times as fast."""
    lines = orjson.dumps(codes, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_INDENT_2)
    return b"[%b]" % lines.translate(_LINES_TO_SPACES, b" ")[2:-2]


def talk(texts: Sequence[RawText], pictures: Sequence[Picture]) -> str:
    """A conversation as one text: a line for each turn, `<image>` where its picture stands."""
    turns: list[tuple[Role, str]] = []
    marks = [picture.place for picture in pictures]
    for text in texts:
        said = ""
        while marks and text.place > marks[0]:
            said += _IMAGE
            marks.pop(0)
        if turns and turns[-1][0] == text.role:
            turns[-1] = (text.role, turns[-1][1] + said + text.text)
        else:
            turns.append((text.role, said + text.text))
    if marks:
        turns[-1] = (turns[-1][0], turns[-1][1] + _IMAGE * len(marks))
    return "\n".join(f"{_SPEAKERS[role]}: {said}" if role in _SPEAKERS else said for role, said in turns)


def _is_talk(texts: Sequence[RawText]) -> bool:
    return any(text.role != Role.NONE for text in texts)


def _arrays(rows: Sequence[tuple[Any, ...]]) -> list[pa.Array]:
    import pyarrow as pa

    columns = zip(FEATURES, zip(*rows, strict=True), strict=True)
    return [pa.array(column, pa.int64()) if name == "length" else _strings(column) for name, column in columns]


def _strings(values: Sequence[str | bytes]) -> pa.Array:
    """Of texts or their UTF-8, in one copy."""
    import pyarrow as pa

    data = [value if isinstance(value, bytes) else value.encode() for value in values]
    first = np.zeros(len(data) + 1, "<i4")
    np.cumsum([len(item) for item in data], out=first[1:])
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(first), pa.py_buffer(b"".join(data)))


def _pictures(rows: Rows) -> list[list[Picture]]:
    """Of each row."""
    table, found = rows.table, [list[Picture]() for _ in range(len(rows))]
    place = before_in_row(table.row, np.ones(len(table.row), np.int64))
    is_image = table.kind == Kind.IMAGE
    images = table.of_kind(Kind.IMAGE)
    if not len(images.row):
        return found
    maps = rows.dataset.maps
    first = images.first_token + maps.tokens[images.part]
    columns = (images.row, first, images.length, images.height, images.width, place[is_image])
    with maps.opened(images.part):
        ids = maps.column("tokens/ids")
        for row, start, length, height, width, at in zip(*(column.tolist() for column in columns), strict=True):
            codes = ids[start : start + length].astype(np.int32)
            found[row].append(Picture(codes=codes, height=height, width=width, place=at))
    return found


FORMAT = Liquid()
