"""Datasets of one's own, as the documents write them.   pytest tests/multimodal/datasets/test_base.py"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcdata.base.errors import UserError
from hpcdata.multimodal import Dataset, DatasetBase
from hpcdata.multimodal.datasets.base import snake_case

ROWS = [{"id": number, "image": f"img{number}.png", "question": "what?", "answer": str(number)} for number in range(4)]


class MyDataset(DatasetBase):
    """As in the data preparation guide."""

    def load(self):
        with open(f"{self.data_dir}/annotations.json") as f:
            return json.load(f)

    def get(self, idx, rng):
        item = self.data[idx]
        image = Image.open(f"{self.data_dir}/images/{item['image']}")

        return {
            "image": np.array(image),
            "messages": [
                {"role": "user", "content": item["question"]},
                {"role": "assistant", "content": item["answer"]},
            ],
            "metadata": {"id": item["id"]},
        }


class Listed(DatasetBase):
    def load(self):
        return ROWS


class Random(Dataset):
    def __len__(self) -> int:
        return 3

    def get(self, item, rng):
        return {"draw": int(rng.randint(0, 2**31 - 1)), "item": item}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_dataset/images").mkdir(parents=True)
    (tmp_path / "my_dataset/annotations.json").write_text(json.dumps(ROWS))
    for row in ROWS:
        Image.new("RGB", (6, 4), (row["id"], 0, 0)).save(tmp_path / "my_dataset/images" / row["image"])
    return tmp_path


def test_the_class_of_the_guide_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLMO_DATA_DIR", str(folder))
    dataset = MyDataset(split="train")
    assert (len(dataset), dataset.split, len(dataset.data)) == (4, "train", 4)
    example = dataset[0]
    assert list(example.keys()) == ["image", "messages", "metadata"]
    assert example["image"].shape == (4, 6, 3)
    assert [int(item["image"][0, 0, 0]) for item in dataset] == [0, 1, 2, 3]
    assert dataset.preload() is dataset


def test_its_folder_is_given_or_of_its_class_or_of_the_environment(folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("MOLMO_DATA_DIR", raising=False)
    assert len(MyDataset("train", sample=2, data_dir=str(folder / "my_dataset"))) == 2
    fixed = type("Fixed", (MyDataset,), {"data_dir": str(folder / "my_dataset")})
    assert fixed()[3]["metadata"] == {"id": 3}
    monkeypatch.setenv("MOLMO_DATA_DIR", str(folder / "my_dataset"))
    assert fixed().data_dir == str(folder / "my_dataset") == MyDataset().data_dir


def test_without_one_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOLMO_DATA_DIR", raising=False)
    with pytest.raises(AttributeError, match=r"MyDataset has no data_dir: give data_dir=.*MOLMO_DATA_DIR"):
        MyDataset()
    assert len(Listed()) == 4


def test_a_list_of_examples_needs_no_get_and_stays_as_it_is() -> None:
    dataset = Listed(sample=3)
    dataset[1]["answer"] = "changed"
    assert [example["answer"] for example in dataset] == ["0", "1", "2"]
    assert pickle.loads(pickle.dumps(dataset))[2] == ROWS[2]
    with pytest.raises(UserError, match=r"load gives str and no dictionaries: it needs a method get"):
        type("Strings", (Listed,), {"load": lambda self: ["a"]})()[0]


def test_an_index_is_of_any_kind_of_number_and_within_the_dataset() -> None:
    dataset = Random()
    assert dataset[np.int64(1)] == dataset[1] == dataset[-2]
    for item in (3, -4):
        with pytest.raises(IndexError, match=f"example {item} of Random, which has 3"):
            dataset[item]
    with pytest.raises(TypeError):
        dataset["1"]  # type: ignore[index]


def test_an_example_that_is_asked_for_by_its_index_is_the_same_every_time() -> None:
    assert [example["draw"] for example in Random()] == [Random()[item]["draw"] for item in range(3)]
    assert len({example["draw"] for example in Random()}) == 3


def test_pictures_are_read_ahead_and_one_that_is_not_there_is_left(folder: Path) -> None:
    rows = [{"image": str(folder / "my_dataset/images/img0.png")}, {"image": ["nowhere.png"]}, {"text": "none"}]
    assert len(type("Paths", (Listed,), {"load": lambda self: rows})().preload()) == 3


@pytest.mark.parametrize(
    ("name", "expected"), [("MyDataset", "my_dataset"), ("PixMoCap", "pix_mo_cap"), ("VQA2", "vqa2"), ("x", "x")]
)
def test_a_folder_is_named_as_its_class_in_small_letters(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_other_data_has_another_fingerprint() -> None:
    assert Listed().fingerprint() == Listed().fingerprint() != Listed("test").fingerprint()
    assert len({Listed().fingerprint(), Listed(sample=2).fingerprint(), Random().fingerprint()}) == 3
    changed = Listed()
    changed.data = [*ROWS[:3], {"id": 4}]
    assert changed.fingerprint() != Listed().fingerprint()
