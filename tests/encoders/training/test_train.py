"""Training the embedded tokenizer: resumes exactly, exports what runs. pytest tests/encoders/training/test_train.py"""

import dataclasses
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.base.signals import StopFlag
from hpcdata.config.values import build
from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.training import start
from hpcdata.encoders.training import train as training
from hpcdata.encoders.training.crops import Crops
from hpcdata.encoders.training.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)  # other tests of this process may have chosen a precision
    torch.set_num_threads(1)
    monkeypatch.setattr(start, "NUM_INITIAL_STEPS", 12)
    monkeypatch.setattr(start, "NUM_ROUNDS", 2)
    monkeypatch.setattr(training, "RESTART_EVERY", 4)
    monkeypatch.setattr(training, "WARM_UP_STEPS", 2)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("drawings")
    with tarfile.open(embedded.path(embedded.QUICKSTART)) as tar:
        members = [member for member in tar if member.name.endswith(".png")][:6]
        tar.extractall(folder, members, filter="data")
    return [str(folder / "*.png")]


@pytest.fixture
def recipe(tmp_path: Path, drawings: list[str]) -> Recipe:
    return Recipe(output_dir=str(tmp_path / "out"), drawings=drawings, photos=[], num_steps=10, batch_size=4, side=64)


class StopAfter(StopFlag):
    """Receives a signal when it has been asked so many times."""

    def __init__(self, polls: int) -> None:
        super().__init__()
        self.polls = polls

    @property
    def received(self) -> signal.Signals | None:  # type: ignore[override]
        self.polls -= 1
        return signal.SIGTERM if self.polls < 0 else None

    @received.setter
    def received(self, value: signal.Signals | None) -> None:
        pass


def tokenizer_bytes(recipe: Recipe) -> bytes:
    return (Path(recipe.output_dir) / training.TOKENIZER).read_bytes()


@pytest.mark.slow
def test_an_interrupted_training_ends_in_the_same_bytes(recipe, tmp_path):
    assert training.train(recipe, stop=StopFlag())
    other = dataclasses.replace(recipe, output_dir=str(tmp_path / "interrupted"))
    assert not training.train(other, stop=StopAfter(0))
    assert not training.train(other, stop=StopAfter(3))
    assert not (tmp_path / "interrupted" / training.TOKENIZER).exists()
    assert not training.train(other, stop=StopAfter(4))
    assert training.train(other, stop=StopFlag())
    assert tokenizer_bytes(other) == tokenizer_bytes(recipe)


@pytest.mark.slow
def test_the_job_that_was_terminated_continues_with_the_same_line(tmp_path, drawings):
    """The script as a user types it, ended in the middle by the signal of a scheduler."""
    whole, ended = (start_job(tmp_path / name, drawings) for name in ("whole", "ended"))
    wait_for(tmp_path / "ended" / training.STATE, ended)
    ended.terminate()
    assert ended.wait(60) == 128 + signal.SIGTERM
    assert not (tmp_path / "ended" / training.TOKENIZER).exists()
    again = start_job(tmp_path / "ended", drawings)
    assert (whole.wait(120), again.wait(120)) == (0, 0)
    assert "continues at step" in (tmp_path / "ended.log").read_text()
    results = [(tmp_path / name / training.TOKENIZER).read_bytes() for name in ("whole", "ended")]
    assert results[0] == results[1]
    assert start_job(tmp_path / "ended", drawings).wait(60) == 0, "finished, and nothing is left to do"
    assert (tmp_path / "ended" / training.TOKENIZER).read_bytes() == results[0]


def start_job(output_dir: Path, drawings: list[str]) -> subprocess.Popen[bytes]:
    """So many steps that a signal comes in time, of the smallest crops; the log is `<output_dir>.log`."""
    line = [f"output_dir={output_dir}", f"drawings={drawings}", "batch_size=2", "side=16", "num_steps=120"]
    line += ["save_every_s=0.1", "photo_share=0"]
    script = ROOT / "jobs/train_image_tokenizer.py"
    with open(f"{output_dir}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, str(script), *line],
            stdout=log,
            stderr=log,
            cwd=output_dir.parent,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_result_is_exact_and_encodes_as_it_was_trained(recipe):
    training.train(recipe, stop=StopFlag())
    tokenizer = exact_vq.load(str(Path(recipe.output_dir) / training.TOKENIZER), device="cpu")
    white = torch.full((1, 3, 48, 40), 255, dtype=torch.uint8)
    assert tokenizer.encode(white).unique().tolist() == [0]
    crops = Crops(drawings=recipe.drawings, photos=[], photo_share=0, side=64, seed=1)
    images = torch.from_numpy(crops.batch(0, range(4)))
    error = (tokenizer.decode(tokenizer.encode(images)).double() - images.double()).square().mean().item()
    assert 10 * np.log10(255**2 / error) > 15, "a warm start is a patch quantizer already"


@pytest.mark.slow
def test_training_lowers_the_loss(recipe, monkeypatch):
    losses = []
    real = training._loss

    def noted(back, ink):
        loss, squared = real(back, ink)
        losses.append(loss.item())
        return loss, squared

    batch = Crops.batch
    monkeypatch.setattr(Crops, "batch", lambda self, step, indices: batch(self, step if step > 1000 else 0, indices))
    monkeypatch.setattr(training, "_loss", noted)
    training.train(dataclasses.replace(recipe, num_steps=30), stop=StopFlag())
    assert losses[-1] < 0.95 * losses[0], losses


def test_crops_depend_on_the_step_and_the_index_alone(drawings):
    crops = [Crops(drawings=drawings, photos=drawings, photo_share=0.5, side=40, seed=3) for _ in range(2)]
    together = crops[0].batch(7, range(6))
    assert together.shape == (6, 3, 40, 40)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(crops[1].batch(7, [1, 3, 5]), together[1::2])
    assert (crops[0].batch(8, range(6)) != together).any()


def test_pictures_come_from_lists_and_bad_ones_are_left_out(drawings, tmp_path, caplog):
    good = Path(drawings[0]).parent
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text("\n".join([*map(str, sorted(good.glob("*.png"))), str(tmp_path / "bad.png")]))
    crops = Crops(drawings=[str(tmp_path / "list.txt")], photos=[], photo_share=0.5, side=64, seed=0)
    assert crops.batch(0, range(2)).shape == (2, 3, 64, 64)
    assert "bad.png is left out: not in a known image format" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawings": ["/nowhere/*.png"]}, "/nowhere/.* matches no file"),
        ({"drawings": []}, "drawings and photos name no readable picture"),
        ({"side": 60}, "side=60 must be a multiple of 8"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(recipe, changes, message):
    with pytest.raises(UserError, match=message):
        training.train(dataclasses.replace(recipe, **changes), stop=StopFlag())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drawings": [], "photos": []}, "output_dir is required: pass output_dir="),
        ({"output_dir": "x", "drawings": "a.png", "photos": []}, "drawings='a.png': expected list"),
        ({"output_dir": "x", "drawings": [], "photos": [], "steps": 3}, "unknown configuration key steps"),
        ({"output_dir": "x", "drawings": [], "photos": [], "precision": "int8"}, "expected one of no, bf16, fp16"),
    ],
)
def test_recipes_are_checked_like_configurations(values, message):
    with pytest.raises(UserError, match=message):
        build(Recipe, values)
