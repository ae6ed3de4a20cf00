"""Ids and codes as texts and pictures again.   pytest tests/dataset/test_decoding.py"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import hpcdata
from hpcdata import TokenDataset, UserError, embedded
from hpcdata.dataset import decoding, showing
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.samples import Kind, Role
from tests import made
from tests.smallruns import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A combined run of pictures with captions."""
    folder = tmp_path_factory.mktemp("decoding") / "run"
    small_run(folder, "data.block_size=null", "data.resolution=64")
    combine(folder, CombineOptions())
    return folder


def captions() -> list[str]:
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        files = [tar.extractfile(member) for member in tar if member.name.endswith(".txt")]
        return [file.read().decode() for file in files if file]


def test_captions_and_pictures_come_back(folder: Path) -> None:
    dataset, wanted = TokenDataset(folder), captions()
    for row in (0, 7, 23, -1):
        decoded = dataset.decode(row)
        assert decoded.texts == [wanted[decoded.index].strip()]
        assert [(image.shape, image.dtype) for image in decoded.images] == [((64, 64, 3), np.uint8)]
        assert decoded.key == dataset[row].key
        assert [type(span).__name__ for span in decoded.spans] == [
            "DecodedImage" if span.kind == Kind.IMAGE else "DecodedText" for span in dataset[row].spans
        ]
    assert np.ptp(dataset.decode(0).images[0]) > 100


def test_torch_and_the_environment_of_the_caller_stay_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    decoding._build_image.cache_clear()
    decoding._build_text.cache_clear()
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.set_num_threads(before[0] + 1)
    try:
        TokenDataset(folder).decode(1)
        assert torch.get_num_threads() == before[0] + 1
        assert "TOKENIZERS_PARALLELISM" not in os.environ
    finally:
        torch.set_num_threads(before[0])
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before[1:]


def test_a_dataset_that_was_moved_away_from_its_run_finds_what_comes_with_hpcdata(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dataset", tmp_path / "moved")
    decoded = TokenDataset(tmp_path / "moved").decode(3)
    assert decoded.texts == TokenDataset(folder).decode(3).texts


def test_the_file_of_the_latest_launch_is_used_and_another_one_is_refused(tmp_path: Path) -> None:
    own = json.loads(embedded.path("tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(own, indent=3))
    small_run(tmp_path / "run", f"text.tokenizer={tmp_path}/tokenizer.json", "data.n_train_samples=4")
    combine(tmp_path / "run", CombineOptions())
    assert TokenDataset(tmp_path / "run").decode(0).texts
    (tmp_path / "run/dataset").rename(tmp_path / "moved")
    moved = TokenDataset(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"made with a tokenizers tokenizer of sha256 .* not embedded: pass text_tokenizer"
    ):
        moved.decode(0)
    with pytest.raises(UserError, match="pass text_tokenizer=FILE"):
        moved.decode(0, text_tokenizer=embedded.path("tokenizer.json"))
    assert moved.decode(0, text_tokenizer=tmp_path / "tokenizer.json").texts
    assert "<img" not in moved._repr_html_()


def test_weights_that_are_not_here_are_asked_for(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    combine(tmp_path / "run", CombineOptions())
    dataset = TokenDataset(tmp_path / "run")
    with pytest.raises(UserError, match="pass text_tokenizer=FILE"):
        dataset.decode(0)
    image = next(span for span in dataset[0].spans if span.kind == Kind.IMAGE)
    tokenizers = decoding._Tokenizers(dataset.manifest, None, None, "cpu")
    with pytest.raises(UserError, match=r"made with embedded, weights of sha256 1111.* pass image_checkpoint=FILE"):
        tokenizers.decode(image)


def test_a_notebook_gets_the_account_and_pictures_with_everything_escaped(folder: Path, tmp_path: Path) -> None:
    page = TokenDataset(folder)._repr_html_()
    assert page.count('src="data:image/png;base64,') == showing.NUM_PICTURES
    assert "24 inputs = 24 written + 0 rejected + 0 duplicate" in page
    assert captions()[0].strip() in page
    text = decoding.DecodedText(text="<script>alert(1)</script>\n\x1b[31m", role=Role.USER)
    hostile = decoding.Decoded(index=3, key="<b>", spans=(text,))
    assert "<script>" not in hostile._repr_html_()
    assert "<b>&lt;b&gt;" not in hostile._repr_html_().replace("<b>3: ", "")
    assert "user" in hostile._repr_html_()


def test_it_can_be_told_from_other_datasets_in_a_log(folder: Path) -> None:
    assert repr(TokenDataset(folder)) == (
        f"TokenDataset({str(folder)!r}): 24 inputs = 24 written + 0 rejected + 0 duplicate"
    )
    assert hpcdata.TokenDataset is TokenDataset
