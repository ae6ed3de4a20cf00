"""The note of an export: what can be no note of ours is found, also when it was sealed again.

pytest tests/formats/test_target.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import Failed
from hpcdata.formats.target import FILE_NAME, problems_of, read_target
from tests.formats.tokens.exports import dataset, export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(dataset(folder / "data"), folder / "out", "megatron")
    return folder / "out"


def with_pieces(note: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in note["files"] if "pieces" in entry)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "account": lambda note: note["counts"].update(written=note["counts"]["written"] + 1),
    "account below 0": lambda note: note["counts"].update(written=note["counts"]["inputs"] + 5, rejected={"x": -5}),
    "account of the source": lambda note: note["source"]["counts"].update(duplicate=1),
    "number as text": lambda note: note["counts"].update(images="1"),
    "target": lambda note: note.update(target=["megatron"]),
    "options": lambda note: note.update(options=[]),
    "size": lambda note: note["files"][0].update(size="7"),
    "sha256": lambda note: with_pieces(note).update(pieces=[{"size": 1, "sha256": 5}]),
    "pieces of no size": lambda note: with_pieces(note)["pieces"][0].update(size=-1),
    "pieces of half the file": lambda note: with_pieces(note)["pieces"].pop(),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_note_that_cannot_be_ours_is_refused_although_it_is_sealed(exported: Path, tmp_path: Path, name: str) -> None:
    for path in exported.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    assert problems_of(tmp_path) == []
    note = sealed.read_json(tmp_path / FILE_NAME)
    EDITS[name](note)
    (tmp_path / FILE_NAME).unlink()
    (tmp_path / FILE_NAME).write_bytes(sealed.to_json(note))
    for read in (read_target, problems_of):
        with pytest.raises(Failed, match="is damaged"):
            read(tmp_path)
