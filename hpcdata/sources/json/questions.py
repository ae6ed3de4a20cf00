"""Files of questions, of which only places are held: 16 bytes a question, mapped where they are kept on disk.

{"data": [{...}, {...}]}      a list of the object, by its name
[{...}, {...}]                the file is the list
{"17": {...}, "18": {...}}    an object a question, by keys: `{key}`. Held in memory
{"imageName": "0.png", "questions": {"What is A?": {...}}}
                              the same in an object, `questions.{key}`, whose own values are those of each question
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.json import kept_places
from hpcdata.sources.json.pieces import NAME_OF_LIST, chunks_of, objects

logger = logging.getLogger(__name__)

KEY = "key"
BY_KEYS = ".{key}"
"""Behind the name of an object of questions by keys."""
_MOST_BETWEEN, _MOST_BYTES = 4096, 64 << 20
_BLANK = b" \t\r\n\xef\xbb\xbf"


class QuestionFile:
    """digest: of what the questions say. Safe in several threads and in workers."""

    def __init__(
        self, path: str, list_name: str, most: int | None = None, *, without: str = "", index_dir: Path | None = None
    ) -> None:
        """list_name: of the list in the file's object, or of an object of questions, `NAME.{key}`; empty: the file is
        the list, or has questions by keys. most: only so many of the first. without: questions in which this field is
        true are left out, of objects by keys. index_dir: where places of a large list are kept, see `kept_places`.
        Raises UserError for another file.
        """
        self.num_left_out = 0
        self.path, self._list_name = path, list_name
        self._held: list[tuple[str, Any]] | None = None
        self._places = np.zeros((0, 2), np.int64)
        try:
            with open(path, "rb") as file:
                if list_name.endswith(BY_KEYS):
                    self._hold(file.read(), most, list_name.removesuffix(BY_KEYS), without)
                elif not list_name and file.read(_MOST_BETWEEN).strip(_BLANK)[:1] == b"{":
                    file.seek(0)
                    self._hold(file.read(), most, "", without)
                else:
                    self._find(file.fileno(), most, index_dir)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self._places) if self._held is None else len(self._held)

    def get(self, item: int) -> dict[str, Any]:
        """Raises BadSample for a question that is no object, OSError for a file that cannot be read."""
        if self._held is not None:
            key, row = self._held[item]
            found = {KEY: key, **row} if isinstance(row, dict) else row
        else:
            place, size = self._places[item].tolist()
            with open(self.path, "rb", buffering=0) as file:
                data = read_at(file.fileno(), size, place)
            try:
                found = orjson.loads(data)
            except ValueError as error:
                raise BadSample(Reason.BAD_RECORD, f"{self.path}: question {item} is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise BadSample(
                Reason.BAD_RECORD, f"{self.path}: question {item} is {type(found).__name__}, expected an object"
            )
        return found

    def _hold(self, data: bytes, most: int | None, name: str, without: str) -> None:
        try:
            values = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
        except ValueError as error:
            raise UserError(f"{self.path} is no JSON: {error}") from None
        of_all = dict[str, Any]()
        if name:
            outer = values if isinstance(values, dict) else {}
            of_all = {key: value for key, value in outer.items() if isinstance(value, str | int | float)}
            if not isinstance(values := outer.get(name), dict):
                raise UserError(f"{self.path} is no object with an object {name} of questions by keys")
        rows = [(key, {**of_all, **row} if isinstance(row, dict) else row) for key, row in values.items()]
        kept = [(key, row) for key, row in rows if not (without and isinstance(row, dict) and row.get(without))]
        self._held, self.num_left_out = kept[:most], len(rows) - len(kept)
        try:
            self.digest = hashlib.sha256(orjson.dumps(self._held)).hexdigest()
        except TypeError:
            raise UserError(f"{self.path} has a question of more than 250 levels, one in another") from None

    def __getstate__(self) -> dict[str, Any]:
        """Places that are mapped are mapped again: there may be gigabytes of them."""
        state = dict(self.__dict__)
        if isinstance(self._places, np.memmap):
            state["_places"] = (str(self._places.filename), len(self._places))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._places, tuple):
            name, number = self._places
            self._places = np.memmap(name, "<i8", "r", shape=(number, 2))

    def _find(self, descriptor: int, most: int | None, index_dir: Path | None) -> None:
        kept, stat = None, os.fstat(descriptor)
        if index_dir is not None and most is None and stat.st_size >= kept_places.WORTH_BYTES:
            kept = kept_places.KeptPlaces.of(index_dir, self.path, self._list_name, stat)
            if (found := kept.load()) is not None:
                self._places, self.digest = found.of_each, found.digest
                return
            logger.info("%s is read through once, to find its questions", self.path)
        self._scan(descriptor, most)
        if kept is not None:
            kept.save(self._places, self.digest)

    def _scan(self, descriptor: int, most: int | None) -> None:
        digest, places = hashlib.sha256(), array("q")
        try:
            for place, data in _records(descriptor, self._list_name):
                if most is not None and len(places) >= 2 * most:
                    break
                digest.update(data)
                places.extend((place, len(data)))
        except _NoListError:
            wanted = f"no object with a list {self._list_name}" if self._list_name else "no list and no object"
            raise UserError(f"{self.path} is {wanted} of questions") from None
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        self._places, self.digest = np.array(places, np.int64).reshape(-1, 2), digest.hexdigest()


class _NoListError(Exception):
    pass


def _records(descriptor: int, list_name: str) -> Iterator[tuple[int, bytes]]:
    """(place, bytes) of each object in the list. Raises UserError where something else stands in it."""
    level, place, between = 2 if list_name else 1, 0, b""
    is_inside = is_found = False
    for piece in objects(chunks_of(descriptor), level=level, limit=_MOST_BYTES):
        if piece.is_record:
            if is_inside:
                _require(between.strip() in (b"", b","), place)
                yield place, piece.data
            between = b""
        else:
            between += piece.data
            between = between[:_MOST_BETWEEN] if is_inside else between[-_MOST_BETWEEN:]
            if piece.opens:
                _require(not is_inside or between.lstrip()[:1] == b"]", place)
                if piece.opens == 1 and between.strip(_BLANK) != (b"{" if list_name else b"["):
                    raise _NoListError
                its = NAME_OF_LIST.search(piece.data[-_MOST_BETWEEN:] if is_inside else between)
                is_inside = piece.opens == level and (
                    not list_name or (its is not None and its[1] == list_name.encode())
                )
                is_found |= is_inside
                between = b""
        place += len(piece.data)
    if not is_found:
        raise _NoListError
    _require(not is_inside or between.lstrip()[:1] == b"]", place)


def _require(is_so: bool, place: int) -> None:
    if not is_so:
        raise UserError(f"before byte {place}, in the list of questions, stands what is no object")
