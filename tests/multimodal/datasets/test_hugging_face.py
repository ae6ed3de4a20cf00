"""Datasets of Hugging Face.   pytest tests/multimodal/datasets/test_hugging_face.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcdata.base.errors import UserError
from hpcdata.multimodal import HfDataset, PictureFile, get_dataset

pytestmark = pytest.mark.slow
WORDS = [f"text {number}" for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six rows with a picture, two pictures, a label and a text: saved, saved by splits, and as Parquet."""
    import datasets

    folder = tmp_path_factory.mktemp("hf")
    pictures = [Image.new("RGB", (number + 1, 5), (number, 0, 0)) for number in range(6)]
    rows = {"image": pictures, "pair": [[picture, picture] for picture in pictures], "text": WORDS, "n": [*range(6)]}
    features = {"image": datasets.Image(), "pair": [datasets.Image()]}
    features |= {"text": datasets.Value("string"), "n": datasets.ClassLabel(num_classes=6)}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    data.save_to_disk(folder / "saved")
    halves = {"train": data.select(range(4)), "validation": data.select(range(4, 6))}
    datasets.DatasetDict(halves).save_to_disk(folder / "splits")
    for split, half in halves.items():
        (folder / "parquet").mkdir(exist_ok=True)
        half.to_parquet(folder / f"parquet/{split}-00000-of-00001.parquet")
    data.to_parquet(folder / "whole.parquet")
    return folder


def test_a_saved_folder_gives_its_rows_with_pictures_that_are_not_decoded_yet(folder: Path) -> None:
    dataset = HfDataset("train", path=str(folder / "saved"))
    assert (len(dataset), [example["text"] for example in dataset]) == (6, WORDS)
    example = dataset[4]
    assert isinstance(example["image"], PictureFile)
    assert (example["image"].shape, example["n"]) == ((5, 5, 3), 4)
    assert [np.asarray(picture)[0, 0].tolist() for picture in example["pair"]] == [[4, 0, 0]] * 2
    assert dataset.fingerprint() == HfDataset("train", path=str(folder / "saved")).fingerprint()


def test_a_subclass_names_its_path_and_may_use_the_library(folder: Path) -> None:
    class Captions(HfDataset):
        PATH = str(folder / "splits")

        def get(self, item, rng):
            row = self.dataset[item]
            return {"image": row["image"], "text": row["text"]}

    assert [example["text"] for example in Captions("validation", keep_in_memory=False)] == WORDS[4:]
    assert Captions("train")[1]["image"].size == (2, 5)
    with pytest.raises(UserError, match="has no split test: it has train, validation"):
        Captions("test")
    Captions.download(n_procs=2)


def test_parquet_is_a_file_a_glob_or_a_folder_of_splits(folder: Path, tmp_path: Path) -> None:
    options = {"cache_dir": str(tmp_path)}
    assert len(HfDataset("train", path=str(folder / "whole.parquet"), **options)) == 6
    assert len(HfDataset("train", path=str(folder / "parquet/*.parquet"), **options)) == 6
    found = HfDataset("validation", path=str(folder / "parquet"), **options)
    assert [example["text"] for example in found] == WORDS[4:]
    assert found[0]["image"].shape == (5, 5, 3)
    with pytest.raises(UserError, match=r"parquet, split test: .*test"):
        HfDataset("test", path=str(folder / "parquet"), **options)


def test_what_is_neither_here_nor_on_the_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="nobody/nothing"):
        HfDataset("train", path="nobody/nothing", cache_dir=str(tmp_path))
    with pytest.raises(UserError, match="HfDataset has no PATH"):
        HfDataset("train")


def test_a_saved_folder_is_a_name(folder: Path) -> None:
    assert [example["text"] for example in get_dataset(str(folder / "splits"), split="validation")] == WORDS[4:]
