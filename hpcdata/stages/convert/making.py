"""Batches of records -> what is written of them: a line of JSON, and files of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from hpcdata.base import digest
from hpcdata.config.schema import ConvertConfig
from hpcdata.media.kinds import BEGINNING_BYTES
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Batch, Reason, Sample
from hpcdata.shards.counts import Counts, count_batch
from hpcdata.shards.made import Before, Laid
from hpcdata.shards.one_by_one import each
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.schema import Schema
from hpcdata.sources.pictures.names import key_of, names_of, stem_of
from hpcdata.sources.pictures.placeholders import FIX, KEEP, REJECT, placed
from hpcdata.sources.pictures.turns import IMAGE_MARKER
from hpcdata.stages.convert import prompts
from hpcdata.stages.convert.pictures import Picture, ending_of, pieces_of
from hpcdata.stages.convert.turns import CONVERSATIONS, llava_turns, num_markers

MISMATCH, FIXED, PROMPTED, WITHOUT_EMPTY, NAMELESS, LEAVES_OUT = 1, 2, 4, 8, 16, 32
"""Bits of `samples/notes`: another number of markers than pictures; markers were put in; a prompt was; pictures without
a byte, that no marker asks for, were left out; there was no id; further columns have bytes, which are left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """One sample as it goes to disk."""

    index: int
    key: str
    line: bytes
    """JSON with a line feed. `image` has the names that its pictures get if no other sample has the same id."""
    stem: str
    notes: int
    files: tuple[tuple[str, str], ...] = ()
    """Of its pictures, in order: name in the shard, sha256."""
    pictures: tuple[memoryview, ...] = ()
    """What the files hold; nothing where it is read back, as their sha256 is checked already."""

    def content(self) -> int:
        """What it adds to the content digest: BLAKE2b-256 of key, line, stem, notes, names and sha256 of files."""
        hasher = hashlib.blake2b(digest_size=32)
        files = [text.encode() for file in self.files for text in file]
        for piece in (self.key.encode(), self.line, self.stem.encode(), bytes([self.notes]), *files):
            hasher.update(len(piece).to_bytes(8, "little") + piece)
        return int.from_bytes(hasher.digest(), "little")


class Converting:
    """Nothing is loaded."""

    device, num_ahead = "none", 0

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._config = plan.config.convert
        self._policy = plan.config.data.placeholders

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], ConvertedBatch]:
        samples, rejects = each(batch, self._convert, first_index=first_index, source=source)
        return lambda: ConvertedBatch(samples=samples, rejects=rejects)

    def _convert(self, record: Sample, prepared: list[np.ndarray], index: int) -> Converted:
        line, pictures = pieces_of(prepared)
        values: dict[str, Any] = orjson.loads(line)
        turns = llava_turns(values)
        held, notes = _without_empty(pictures, num_markers(turns))
        turns, fixed = _placed(turns, self._policy, len(held))
        notes |= fixed | _prompt(turns, self._config, index)
        notes |= NAMELESS if values.get("id") is None else 0
        notes |= LEAVES_OUT if record.leaves_out else 0
        stem = stem_of(values.get("id"), index)
        endings = [ending_of(picture.data[:BEGINNING_BYTES].tobytes()) for picture in held]
        numbers = [f".{number}" for number in range(len(held))] if len(held) > 1 else [""]
        files = [f"{index:09d}{number}.{ending}" for number, ending in zip(numbers, endings, strict=False)]
        names = [f"{self._config.image_prefix}{name}" for name in names_of(stem, endings)]
        return Converted(
            index=index,
            key=record.key,
            line=orjson.dumps(_ordered(values, names, turns), option=orjson.OPT_APPEND_NEWLINE),
            stem=stem,
            notes=notes,
            files=tuple((name, picture.sha256) for name, picture in zip(files, held, strict=True)),
            pictures=tuple(picture.data for picture in held),
        )


def _ordered(values: dict[str, Any], names: list[str], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """id, image (left out where there is none: null breaks trainers), conversations, all else."""
    first: dict[str, Any] = {"id": values["id"]} if "id" in values else {}
    if names:
        first["image"] = names[0] if len(names) == 1 else names
    first[CONVERSATIONS] = turns
    left = {name: value for name, value in values.items() if name not in (*first, "image", "messages")}
    return {**first, **left}


def _without_empty(pictures: list[Picture], markers: int) -> tuple[list[Picture], int]:
    """(the pictures, note): those without a byte are left out where the markers count the others alone.

    Raises BadSample where they do not.
    """
    held = [picture for picture in pictures if picture.data]
    if len(held) == len(pictures):
        return held, 0
    if markers != len(held):
        empty = len(pictures) - len(held)
        raise BadSample(
            Reason.EMPTY_IMAGE, f"{empty} of {len(pictures)} pictures have no bytes, {markers} {IMAGE_MARKER} markers"
        )
    return held, WITHOUT_EMPTY


def _placed(turns: list[dict[str, Any]], policy: str, num_images: int) -> tuple[list[dict[str, Any]], int]:
    """(the turns with markers as the policy says, notes). Raises BadSample for what it rejects.

    With `fix` all records have as many markers as pictures in the end: what cannot be fixed is a reject.
    """
    if num_markers(turns) == num_images:
        return turns, 0
    if policy == KEEP:
        return turns, MISMATCH
    record: dict[str, Any] = {CONVERSATIONS: turns}
    is_fixed = False
    if policy == FIX:
        record, is_fixed = placed(record, FIX, num_images=num_images)
    if not is_fixed:
        record, _ = placed(record, REJECT, num_images=num_images)
    return record[CONVERSATIONS], FIXED


def _prompt(turns: list[dict[str, Any]], config: ConvertConfig, index: int) -> int:
    """Puts prompts behind markers that stand alone; returns the note. Turns are changed in place."""
    texts = prompts.texts_of(config.prompt)
    note = 0
    for turn in turns if texts else ():
        if turn["from"] == "human" and prompts.is_empty_question(turn["value"]):
            prompt = prompts.draw(texts, config.prompt_probability, seed=config.seed, index=index)
            turn["value"], note = prompts.asked(turn["value"], prompt), PROMPTED
    return note


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvertedBatch:
    """Samples that are converted, and the rejects between them."""

    samples: Sequence[Converted]
    rejects: Sequence[RejectRow] = ()

    def counts(self) -> Counts:
        return count_batch(
            len(self.samples),
            self.rejects,
            images=sum(len(sample.files) for sample in self.samples),
            fixed_placeholders=sum(bool(sample.notes & FIXED) for sample in self.samples),
        )

    def written(self) -> Sequence[tuple[int, str]]:
        return [(sample.index, sample.key) for sample in self.samples]

    def only(self, indices: Container[int]) -> ConvertedBatch:
        return ConvertedBatch(samples=[sample for sample in self.samples if sample.index in indices])

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        (stream,) = schema.streams
        columns = {
            "samples/index.memmap": np.array([sample.index for sample in self.samples], "<i8"),
            "samples/name.memmap": np.array([key_of(sample.stem) for sample in self.samples], "<i8"),
            "samples/num_pictures.memmap": np.array([len(sample.files) for sample in self.samples], "<u2"),
            "samples/notes.memmap": np.array([sample.notes for sample in self.samples], "u1"),
        }
        lines = [sample.line for sample in self.samples]
        columns |= _ragged("samples/first_byte", lines, before.stream_bytes[stream.path])
        columns["samples/num_bytes.memmap"] = np.array([len(line) for line in lines], "<i8")
        for table, texts in (
            ("keys", [sample.key.encode() for sample in self.samples]),
            ("stems", [sample.stem.encode() for sample in self.samples]),
        ):
            columns |= _ragged(f"samples/first_{table[:-1]}", texts, before.rows[table])
            columns[f"{table}/bytes.memmap"] = np.frombuffer(b"".join(texts), "u1")
        return Laid(
            columns=columns,
            content=digest.add(*(sample.content() for sample in self.samples)),
            streams={stream.path: b"".join(lines)},
            files=[
                (name, data)
                for sample in self.samples
                for (name, _), data in zip(sample.files, sample.pictures, strict=True)
            ],
            sha256=dict(file for sample in self.samples for file in sample.files),
        )


def _ragged(name: str, pieces: Sequence[bytes], start: int) -> dict[str, np.ndarray]:
    """Where each piece begins."""
    sizes = np.array([len(piece) for piece in pieces], "<i8")
    return {f"{name}.memmap": np.cumsum(sizes) - sizes + start}
