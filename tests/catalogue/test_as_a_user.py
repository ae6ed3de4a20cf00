"""Sets in the layouts of the real ones: fetched, verified, looked at, trained on; and all of it without a server.

pytest tests/catalogue/test_as_a_user.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcdata import card, download, verify_datasets, visualize
from hpcdata.multimodal import IterableDatasetMixture, MolmoPreprocessorConfig, MultimodalLoader, get_dataset
from hpcdata.order.packing import BestFit
from tests import browser
from tests.catalogue import real_sets, sets
from tests.catalogue.hub import Hub
from tests.multimodal.test_training import CONFIG, TwoLayers, train

ROOT = Path(__file__).parents[2]
SAID = {
    "pixmo_cap": "A long caption of picture 2.",
    "ChartQA": "How high is bar 4 of train?",
    "LLaVA-Pretrain": "It is 3.",
    "LLaVA-OneVision-Data": "ai2d(cauldron,llava_format) 2",
    "VqaV2": "How many 2?",
    "cc3m": "caption 2",
}
"""Name -> words of one of its examples."""


@pytest.mark.slow
def test_all_is_fetched_verified_looked_at_and_trained_on_and_then_again_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_TOKEN", "HF_ACCESS_TOKEN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "our data (a,b) [1] = it's"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HPCDATA_CATALOGUE", str(tmp_path / "own"))
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        _serve(hub, tmp_path / "own")
        assert download.main(["all", "--n-proc", "4", "--ignore-errors"]) == 0
        assert "vqa2: 6 files = 6 fetched + 0 kept + 0 failed; 6 archives unpacked" in capsys.readouterr().out
        _fetch_as_said(tmp_path, capsys)
        losses = _looked_at_and_trained_on(tmp_path / "pages", capsys)
        num_asked = len(hub.requests)
    shown = browser.open_page(tmp_path / "pages/VqaV2/index.html")
    assert SAID["VqaV2"] in shown.dom
    assert not [item for item in shown.requests if item.startswith("http")]
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    capsys.readouterr()
    assert download.main([*SAID, "--json"]) == 0
    assert [item["fetched"] for item in json.loads(capsys.readouterr().out)] == [0] * len(SAID)
    assert download.main(["--check", *SAID]) == 0
    assert download.main(["all", "--ignore-errors"]) == 0
    assert len(hub.requests) == num_asked
    assert _looked_at_and_trained_on(tmp_path / "again", capsys) == losses
    for name in SAID:
        assert (tmp_path / "pages" / name / "index.html").read_bytes() == (
            tmp_path / "again" / name / "index.html"
        ).read_bytes()


def _serve(hub: Hub, own: Path) -> None:
    real_sets.pixmo_cap(hub.folder, lambda path: f"{hub.url}/files/{path}")
    real_sets.chart_qa(hub.folder)
    real_sets.llava_pretrain(hub.folder)
    real_sets.onevision(hub.folder)
    real_sets.vqa2(hub.folder)
    real_sets.cc3m(hub.folder)
    sets.vqa2_of(hub, own)
    sets.kept_from_the_web(own)
    hub.misbehave("cut", part="images.zip")
    hub.misbehave("flip", part="data/train-0")
    for part in ("cc3m-validation", "photos/1.png"):
        hub.misbehave("status", value=(429, {"Retry-After": "1"}), part=part)


def _fetch_as_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line that the list says of a set whose pictures are missing. The hub is of this machine: that is added."""
    assert download.main(["--list", "pixmo_cap", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "partial"
    _, _, line = row["what_to_do"].partition(": ")
    line = line.replace("hpcdata ", f"{sys.executable} -m hpcdata ", 1) + " fetch.allow_private=true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert download.main(["--list", "pixmo_cap", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "present"
    run = Path(row["folder"], "images")
    assert card.main([str(run)]) == 0
    assert "dense captions of pictures, spoken and written" in (run / "card.md").read_text()


def _looked_at_and_trained_on(pages: Path, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """The losses of twenty steps."""
    capsys.readouterr()
    assert verify_datasets.main(["--json", "--all"]) == 0
    reports = json.loads(capsys.readouterr().out)["splits"]
    assert len({report["name"] for report in reports}) == len(SAID)
    assert all(report["num_pictures"] == report["num_looked"] == report["num_examples"] > 0 for report in reports)
    for name, words in SAID.items():
        assert visualize.main([name, str(pages / name)]) == 0
        assert words in (pages / name / "index.html").read_text()
    datasets = {name: get_dataset(name) for name in SAID}
    preprocessor = MolmoPreprocessorConfig(**CONFIG).build_preprocessor(is_training=True)
    mixture = IterableDatasetMixture(datasets, [1.0] * len(datasets), seed=1)
    torch.manual_seed(0)
    model = TwoLayers(preprocessor.words.vocab_size, 588)
    packing = BestFit(length=384, max_images=9, window=16)
    loader = MultimodalLoader(
        mixture, preprocessor, global_batch_size=2, packing=packing, consumer="molmo", rank=0, world_size=1
    )
    losses = train(model, loader, lr=1e-2, steps=20)
    assert not loader.rejects
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    return losses
