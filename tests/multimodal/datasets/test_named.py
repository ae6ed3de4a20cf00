"""Sets of several questions a picture, and of conversations.   pytest tests/multimodal/datasets/test_named.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata import verify_datasets
from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.catalogue import listing
from hpcdata.multimodal import get_dataset
from hpcdata.multimodal.datasets import named
from hpcdata.multimodal.datasets.tables import TableDataset
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample
from tests.catalogue.real_sets import picture

PAIRS = {"question": ["How many?", "Which?"], "explanation": ["I count.", "I look."], "answer": ["3", "red"]}
AS_ROWS = [{name: values[place] for name, values in PAIRS.items()} for place in range(2)]


def placed(name: str, file: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLMO_DATA_DIR", str(root))
    entry = named.find(name)
    assert entry is not None
    listed = listing.path_of(root / entry.folder)
    listed.parent.mkdir(parents=True)
    if entry.access == "open":
        listed.write_bytes(sealed.to_json({"sources": listing.sources_of(entry), "files": []}))
    path = root / entry.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_row(path: Path, **columns: Any) -> Path:
    image = {"bytes": picture(1), "path": None}
    pq.write_table(pa.Table.from_pylist([{"id": "a", "image": image, **columns}]), path)
    return path


@pytest.mark.parametrize("pairs", [PAIRS, AS_ROWS])
def test_questions_of_a_picture_are_its_annotations(
    pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the lists are stored."""
    write_row(placed("cosyn", "chart/train-00000-of-00001.parquet", tmp_path, monkeypatch), qa_pairs=pairs)
    example = get_dataset("cosyn", "train")[0]
    assert example["image"].size() == (41, 61)
    assert example["message_list"] == [
        {"question": "How many?", "answer": "3", "style": "cosyn_chart"},
        {"question": "Which?", "answer": "red", "style": "cosyn_chart"},
    ]


def test_pictures_of_several_columns_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [{"bytes": picture(number), "path": None} for number in (1, 2)]
    columns = dict.fromkeys((f"image_{number}" for number in range(1, 8)), None)
    rows = [columns | {"image_1": pictures[0], "image_3": pictures[1]}, columns | {"image_2": pictures[1]}, columns]
    path = placed("mmmu", "Art/validation-00000-of-00001.parquet", tmp_path, monkeypatch)
    pq.write_table(
        pa.Table.from_pylist([row | {"question": "Which?", "options": ["a", "b"], "answer": "A"} for row in rows]),
        path,
    )
    two, one, none = get_dataset("mmmu", "validation")
    assert [image.size() for image in two["image"]] == [PictureFile(picture(number)).size() for number in (1, 2)]
    assert one["image"].size() == PictureFile(picture(2)).size()
    assert "image" not in none


def test_points_of_several_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = placed("cosyn_point", "data/validation-00000-of-00001.parquet", tmp_path, monkeypatch)
    points = [{"x": [10.0, 20.0], "y": [30.0, 40.0]}]
    write_row(path, questions=["Where is it?"], names=["it"], answer_points=points)
    (annotation,) = get_dataset("cosyn_point", "validation")[0]["message_list"]
    assert annotation == {
        "question": "Where is it?",
        "label": "it",
        "points": [{"x": 10.0, "y": 30.0}, {"x": 20.0, "y": 40.0}],
        "point_scale": 100,
        "style": "cosyn_point",
    }
    write_row(path, questions=["Where is it?", "And?"], names=["it"], answer_points=points)
    with pytest.raises(BadSample, match=r"parquet: a row has 2 of questions, 1 of names, 1 of answer_points"):
        get_dataset("cosyn_point", "validation")[0]


def test_what_a_table_of_annotations_lacks_is_told(tmp_path: Path) -> None:
    path = write_row(tmp_path / "a.parquet", qa_pairs=PAIRS)
    with pytest.raises(UserError, match=r"a\.parquet has no column pairs: it has id, image, qa_pairs"):
        TableDataset([path], {"image": "image"}, each={"question": "pairs.question"})
    with pytest.raises(BadSample, match=r"a\.parquet: a row has no qa_pairs\.ask"):
        TableDataset([path], {"image": "image"}, each={"question": "qa_pairs.ask"})[0]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        *((name, "p/a.png") for name in ("MathV360K_TQA", "MathV360K_VQA-AS", "MathV360K_VQA-RAD")),
        *((name, "p/a.png") for name in ("llava_wild_4v_12k", "llava_wild_4v_39k")),
        ("M4-Instruct", ["p/a.png"]),
        ("Evol-Instruct-GPT4-Turbo-143000", None),
    ],
)
def test_conversations_that_a_person_has_placed(
    name: str, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placed(name, "all.json", tmp_path, monkeypatch)
    (path.parent / "p").mkdir()
    (path.parent / "p/a.png").write_bytes(picture(1))
    asked = "How many?" if image is None else "<image>\nHow many?"
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "Three."}]
    path.write_text(json.dumps([{"id": "1", "conversations": turns, **({"image": image} if image else {})}]))
    example = get_dataset(name)[0]
    assert "How many?" in str(example["messages"])
    assert "Three." in str(example["messages"])
    assert ("image" in example or "images" in example) == (image is not None)
    assert verify_datasets.main([name]) == 0
    assert "1 examples; 1 made" in capsys.readouterr().out
