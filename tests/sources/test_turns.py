"""Conversations that a table holds as an object of lists.   python -m pytest tests/sources/test_turns.py

Sequence of struct in data sets of Hugging Face before 4: {"from": ["human", "gpt"], "value": ["q", "a"]}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcdata.formats.records.llava import llava_record
from hpcdata.formats.records.sample_types import _holds_talk
from hpcdata.multimodal.datasets.hugging_face import HfDataset
from hpcdata.samples import Blob, ImagePart, Member, Place, Sample
from hpcdata.sources.base import InputFile, Options
from hpcdata.sources.custom.applying import applied
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.pictures.placeholders import placed
from hpcdata.sources.pictures.turns import turns_of
from hpcdata.sources.records import named_in, sample_parts, talk_beside, with_markers
from hpcdata.stages.convert.turns import llava_turns
from hpcdata.stages.copy.forms import as_json_line
from hpcdata.stages.copy.rows import as_record

FILE = InputFile(path="/in/x.jsonl", label="x.jsonl", format="jsonl", base="/in", roots=("/in",))
PIECES = [{"type": "image", "text": None, "image": "b.jpg"}, {"type": "text", "text": "q", "image": None}]
TALKS = {
    "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    "messages": [{"role": "user", "content": PIECES}, {"role": "assistant", "content": [PIECES[1]]}],
}


def in_columns(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """As Arrow gives them: lists of pieces are columns too."""
    pieces = [isinstance(turn.get("content"), list) for turn in turns]
    turns = [
        {**turn, "content": {name: [piece[name] for piece in turn["content"]] for name in PIECES[0]}} if held else turn
        for turn, held in zip(turns, pieces, strict=True)
    ]
    return {name: [turn[name] for turn in turns] for name in turns[0]}


def copied(record: dict[str, Any], form: Callable[..., Any]) -> bytes:
    members = tuple(
        Member(extension=name, blob=Blob(path="", place=Place(roots=("/in",), words=""))) for name in ("json", "jpg")
    )
    sample = Sample(position=0, key="x/0", parts=(), members=members)
    made = form(sample, 0, {"json": json.dumps(record).encode(), "jpg": b"JPEG"})
    return made.data


def of_the_hub(record: dict[str, Any], _name: str) -> Any:
    class Rows(HfDataset):
        def __init__(self) -> None:
            self._pictures = set()
            self._rows = self

        def __getitem__(self, item: slice) -> Rows:
            return self

        def to_pylist(self) -> list[Any]:
            return [record]

    return Rows().get(0, None)  # type: ignore[arg-type]


def custom(record: dict[str, Any], name: str) -> Any:
    found = applied(record, parsed(json.dumps({"image": "image", "conversations": name})), 0)
    return turns_of(found["conversations"], "conversations")


READERS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "fix": lambda record, name: placed(record, "fix", num_images=1)[0].get(name),
    "turns": lambda record, name: turns_of(record[name], name),
    "pictures": lambda record, _: named_in(record),
    "parts": lambda record, _: sample_parts(record, FILE, Options()),
    "parts, fixed": lambda record, _: sample_parts(
        with_markers(record, Options(placeholders="fix"))[0], FILE, Options()
    ),
    "members of a tar": lambda record, _: talk_beside(record, [ImagePart(blob=Blob(path="a"))], Options()),
    "convert": lambda record, _: llava_turns(record),
    "copy as rows": lambda record, _: copied(record, as_record),
    "export as LLaVA": lambda record, _: llava_record(record, "k", ["a"], prompt="", placeholders="fix"),
    "energon": lambda record, _: _holds_talk(record),
    "mapping": custom,
    "hub": of_the_hub,
}


@pytest.mark.parametrize("name", TALKS)
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_turns_reads_them_in_columns_too(reader: str, name: str) -> None:
    as_list = {"id": 1, "image": "a.jpg", name: TALKS[name]}
    as_columns = {**as_list, name: in_columns(TALKS[name])}
    read = READERS[reader]
    if (reader, name) == ("fix", "messages"):  # it has a marker, and stays as it is
        assert read(as_columns, name) == as_columns[name]
        return
    assert read(as_columns, name) == read(as_list, name)


def test_copies_do_not_name_the_files_of_before() -> None:
    record = {"image": "a.jpg", "messages": in_columns(TALKS["messages"])}
    assert b"b.jpg" not in copied(record, as_json_line)


@pytest.mark.parametrize("turns", [{"from": ["human"], "value": ["q", "a"]}, {"from": [], "value": "q"}])
def test_lists_of_different_lengths_are_no_conversation(turns: dict[str, Any], tmp_path: Path) -> None:
    assert of_the_hub({"messages": turns}, "") == {"messages": turns}
    assert json.loads(copied({"messages": turns}, as_json_line))["messages"] == turns
