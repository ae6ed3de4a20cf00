"""python -m pytest tests/loading/test_killed_trainers.py -m slow

Real trainers are killed by SIGKILL between two checkpoints, more than once, and go on: not one batch is lost, and none
is there twice, as the models see them.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import batch_digest
from hpcdata.loading.trainers import Epochs
from tests.loading import made, trained

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", trained.TRAINERS)
def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path: Path, name: str) -> None:
    text = {**made.TEXT, "vocab_size": 300, "image_token_id": 299}
    layout = {**made.LAYOUT, "img_token_shift": 300, "text_vocab_size": 300}
    image = {**made.IMAGE, "codebook_size": 300}
    parts = made.split(made.pairs(80, grid=2, vocab_size=299))
    dataset = str(made.make_dataset(tmp_path / "dataset", parts, text=text, image=image, layout=layout))
    folder = tmp_path / "training"
    folder.mkdir()
    batches = Epochs(trained.loader_of(dataset))
    total = trained.NUM_EPOCHS * len(batches)
    wanted = [batch_digest([batch]) for batch in itertools.islice(trained.loader_of(dataset), total)]
    assert len(set(wanted)) == total > 2 * trained.SAVE_EVERY + 6

    kept: list[str] = []
    for kill_at in (trained.SAVE_EVERY + 2, trained.SAVE_EVERY + 3, -1):
        command = [sys.executable, "-m", "tests.loading.trained", name, dataset, str(folder), str(kill_at)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == (0 if kill_at < 0 else -signal.SIGKILL), ended.stderr[-2000:]
        fed = [line.split()[1] for line in (folder / "fed").read_text().splitlines()]
        (folder / "fed").unlink()
        assert fed == wanted[len(kept) :][: len(fed)]
        assert len(fed) == (total - len(kept) if kill_at < 0 else kill_at + 1)
        kept += fed if kill_at < 0 else fed[: len(fed) // trained.SAVE_EVERY * trained.SAVE_EVERY]
    assert kept == wanted
