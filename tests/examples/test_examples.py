"""python -m pytest tests/examples -m slow"""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import batch_digest
from tests.examples.train import make_loader

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: object) -> list[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["transformers", "lightning", "accelerate", "torch"])
def test_a_training_in_two_runs_is_fed_what_one_run_is(tmp_path, trainer):
    """Over the end of an epoch; the second run goes on from what the first has saved."""
    lines = run("tests.examples.train", trainer, tmp_path, "--steps", 40)
    lines += run("tests.examples.train", trainer, tmp_path, "--steps", 45)
    found = [line.rpartition(" loss")[0] for line in lines if line.startswith("step ")]
    loader = make_loader(tmp_path)
    assert loader.num_steps(0) < 40
    batches = enumerate(itertools.islice(loader, 45), 1)
    assert found == [f"step {step} fed {batch_digest([batch])}" for step, batch in batches]


@pytest.mark.slow
def test_three_kinds_of_attention_give_the_same():
    lines = run("tests.examples.attention")
    assert [float(line.split()[-1]) < 1e-5 for line in lines[1:]] == [True, True]
