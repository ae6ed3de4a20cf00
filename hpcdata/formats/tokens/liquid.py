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
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.base.errors import Failed, UserError
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats import arrow
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.rows import Rows, copy_ids
from hpcdata.formats.tokens.strings import CodeTexts, Strings
from hpcdata.native.arrays import before_in_row, totals_before
from hpcdata.samples import ROLE_MASK, Kind, RawText, Reason, Role
from hpcdata.shards.schema import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from hpcdata.dataset.span_table import SpanTable

log = logging.getLogger(__name__)

NO = b"no"
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
_KINDS = (b"text_pretrain", b"image_text", b"text_sft", b"image_text_sft")
"""With a picture, and of conversations."""
_OTHER_BYTES_A_ROW = 200


class Liquid:
    name = "liquid"
    keys = ("conversations", "max_length", "num_shards")
    ending, has_stream, has_files, piece_bytes = ".arrow", True, False, None
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


class _Writer:
    def __init__(self, context: Context) -> None:
        self._export, self._shard_size = context.export, context.shard_size
        self._schema = arrow.schema_of(FEATURES)
        manifest = context.dataset.manifest
        self._has_several_sizes, self._folder = has_several_sizes(manifest), manifest.folder
        self._downsample = manifest.image.downsample if manifest.image else 1
        self._codes = CodeTexts(manifest.image.codebook_size if manifest.image else 0, without=NO)

    def write(self, rows: Rows) -> Written:
        found = _Found(rows)
        rejects = list(self._rejects(found))
        kept = np.ones(len(rows), bool)
        kept[[number for number, _, _ in rejects]] = False
        head = [arrow.head(self._schema)] if rows.start % self._shard_size == 0 else []
        most = self._most_ids(rows)
        long = kept & most & (found.num_pictures > 0) if most is not None else np.zeros(len(rows), bool)
        return Written(
            stream=[*head, *map(arrow.body, self._batches(found, kept))],
            rejects=rejects,
            columns={"long/row.memmap": rows.position[long].astype("<i8")},
        )

    def _rejects(self, found: _Found) -> Iterator[tuple[int, Reason, str]]:
        num_pictures, num_texts, is_talk = found.num_pictures, found.texts.counts, found.is_talk
        is_refused = is_talk & (self._export.conversations == "reject")
        may_be_no = (num_pictures == 0) & (num_texts == 1) & (found.num_bytes == len(NO))
        for number in np.flatnonzero((num_pictures > 1) | (num_texts == 0) | is_refused | may_be_no).tolist():
            if num_pictures[number] > 1:
                yield number, Reason.TOO_MANY_IMAGES, f"{num_pictures[number]} pictures, Liquid takes one"
            elif not num_texts[number]:
                yield number, Reason.MISSING_TEXT, "no text"
            elif is_refused[number]:
                message = (
                    "a conversation, and Liquid knows captions and texts: export.conversations=sft writes it as text"
                )
                yield number, Reason.BAD_EXAMPLE, message
            elif found.said[number] == NO:
                message = f"the text is {NO.decode()!r}, by which Liquid says that there is none"
                yield number, Reason.BAD_EXAMPLE, message

    def _batches(self, found: _Found, kept: np.ndarray) -> Iterator[pa.RecordBatch]:
        """As many rows at a time as a column of strings can hold."""
        import pyarrow as pa

        rows = np.flatnonzero(kept)
        said, num_characters = found.all_said(rows)
        pictures = found.pictures.select(kept[found.pictures.row])
        at = (np.cumsum(kept) - 1)[pictures.row]
        has_picture, num_codes = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
        has_picture[at], num_codes[at] = True, pictures.length
        codes = self._code_texts(found, pictures, at, num_codes, has_picture)
        nothing = Strings.of([NO] * len(rows))
        length = num_characters + CHARACTERS_A_CODE * num_codes
        kinds = Strings.of([_KINDS[kind] for kind in (2 * found.is_talk[rows] + has_picture).tolist()])
        columns: list[Strings | np.ndarray] = [kinds, said, length, codes, nothing, nothing, nothing]
        if self._has_several_sizes:
            columns[3:] = [
                nothing,
                codes,
                *(self._sides(side, at, len(rows)) for side in (pictures.width, pictures.height)),
            ]
        ends = totals_before(4 * num_characters + codes.num_bytes + len(NO))
        start = 0
        while start < len(rows):
            stop = max(start + 1, int(np.searchsorted(ends, ends[start] + arrow.MOST_IN_BATCH, side="right")) - 1)
            arrays = [
                column.array(start, stop) if isinstance(column, Strings) else pa.array(column[start:stop])
                for column in columns
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self._schema)
            start = stop

    def _code_texts(
        self, found: _Found, pictures: SpanTable, at: np.ndarray, num_codes: np.ndarray, has_picture: np.ndarray
    ) -> Strings:
        """at: of each picture the place of its row among those that are kept ([num_pictures])."""
        first = totals_before(num_codes + 1)
        codes = np.zeros(int(first[-1]), np.int32)
        copy_ids(found.rows.dataset, pictures, np.zeros(len(at), np.int64), first[at] + 1, codes)
        try:
            return self._codes.of(codes, first, has_picture)
        except ValueError as error:
            raise Failed(f"{self._folder} is damaged ({error}): restore it, or combine its run again") from None

    def _sides(self, side: np.ndarray, at: np.ndarray, num_rows: int) -> Strings:
        """Pixels of pictures; `NO` in rows without."""
        values = [NO] * num_rows
        for row, pixels in zip(at.tolist(), (side * self._downsample).tolist(), strict=True):
            values[row] = b"%d" % pixels
        return Strings.of(values)

    def _most_ids(self, rows: Rows) -> np.ndarray | None:
        """[num_rows] bool: whether the ids of the texts leave no room for all codes; None where nobody asks."""
        if self._export.max_length is None:
            return None
        table = rows.table.of_kind(Kind.TEXT)
        num_ids = np.bincount(table.row, table.length, len(rows))
        return num_ids + 1 + AROUND > self._export.max_length


class _Found:
    """What is in rows: [num_rows] each, where nothing else is said."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.texts = rows, rows.dataset.raw_texts(rows.row)
        self.pictures = rows.table.of_kind(Kind.IMAGE)
        self.num_pictures = np.bincount(self.pictures.row, minlength=len(rows))
        self.said = self.texts.of_samples()
        """UTF-8, the texts of a row end to end."""
        self.num_bytes = np.array([len(item) for item in self.said], np.int64)
        row = np.repeat(np.arange(len(rows)), self.texts.counts)
        self.is_talk = np.bincount(row, self.texts.flags & ROLE_MASK != Role.NONE, len(rows)) > 0

    def all_said(self, rows: np.ndarray) -> tuple[Strings, np.ndarray]:
        """The one text of each of these rows ([n]), and its characters."""
        said = [self.said[row] for row in rows.tolist()]
        several = np.flatnonzero((self.texts.counts[rows] > 1) | self.is_talk[rows]).tolist()
        if several:
            texts, mark = self.texts.rows(), self._marks()
            for at in several:
                row = int(rows[at])
                joined = "\n".join(item.text for item in texts[row])
                said[at] = (talk(texts[row], mark[row]) if self.is_talk[row] else joined).encode()
        return Strings.of(said), np.array([len(item.decode()) for item in said], np.int64)

    def _marks(self) -> list[list[int]]:
        """Of each row, which of its spans are pictures."""
        table, found = self.rows.table, [list[int]() for _ in range(len(self.rows))]
        place = before_in_row(table.row, np.ones(len(table.row), np.int64))[table.kind == Kind.IMAGE]
        for row, at in zip(self.pictures.row.tolist(), place.tolist(), strict=True):
            found[row].append(at)
        return found


def talk(texts: Sequence[RawText], pictures: Sequence[int]) -> str:
    """A conversation as one text: a line for each turn, `<image>` where its picture stands. pictures: their spans."""
    turns: list[tuple[Role, str]] = []
    marks = list(pictures)
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


FORMAT = Liquid()
