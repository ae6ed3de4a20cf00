"""A training on real pictures is killed on two ranks and goes on, on one and on three.

    pytest tests/multimodal/test_torchrun.py -m slow

A mixture of three sources: conversations and captions that were measured, and trees of a class of one's own.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import hpcdata
from hpcdata.loading.replaying import batch_digest
from hpcdata.multimodal import make_loader, register
from tests import corpora
from tests.loading.test_torchrun import seen, start
from tests.multimodal import real

TRAIN = """
import json, os, sys, time
import torch
import torch.distributed as dist
from hpcdata import batch_digest
from tests.multimodal.test_torchrun import open_loader

recipe, out = sys.argv[1:3]
torch.set_num_threads(1)
with open(f"{out}/pid.{os.getpid()}", "w"):
    pass
dist.init_process_group("gloo")
loader = open_loader(recipe)
rank, world_size = dist.get_rank(), dist.get_world_size()
assert (loader.rank, loader.world_size) == (rank, world_size)
num_steps = int(os.environ.get("NUM_STEPS", 10**6))
if os.path.exists(out + "/state.json"):
    with open(out + "/state.json") as file:
        loader.load_state_dict(json.load(file))
for batch in loader:
    shares = [None] * world_size
    dist.all_gather_object(shares, batch)
    if rank == 0:
        rows = int((torch.cat([share["segment_ids"] for share in shares]).max(dim=1).values).sum())
        with open(out + "/seen.jsonl", "a") as file:
            line = {"samples": rows, "digest": batch_digest(shares), "state": loader.state_dict()}
            file.write(json.dumps({"world_size": world_size, **line}) + "\\n")
    dist.barrier()
    if os.environ.get("SLOWLY"):
        time.sleep(0.1)
    num_steps -= 1
    if not num_steps:
        break
dist.destroy_process_group()
"""
NUM_STEPS = 5
"""Of those that go on."""


def open_loader(recipe: str, **where: int):
    register("trees of the test", real.Trees)
    return make_loader(recipe, **where)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    if not corpora.available("tuxpaint"):
        pytest.skip("needs tuxpaint-stamps-default")
    folder, pairs = tmp_path_factory.mktemp("real"), corpora.pairs("tuxpaint")[:240]
    real.write_llava(pairs[:90], folder)
    corpora.write_tars(pairs[90:180], folder, "captions", 30)
    real.write_trees(pairs[180:], folder)
    measure = ["+experiments=measure", "text.tokenizer=embedded", "data.shard_size=20"]
    root = f"data.image_root={corpora.TUXPAINT}"
    for name, source in (("conversations", folder / "conversations.json"), ("captions", folder / "captions-*.tar")):
        run = hpcdata.run([*measure, root, f"data.raw_data_dir={source}", f"data.token_output_dir={folder / name}"])
        assert run.status().is_finished
    path = folder / "train.yaml"
    path.write_text(f"""
datasets:
  - {{dataset: {folder / "conversations"}, name: conversations, weight: 2}}
  - {{dataset: {folder / "captions"}, name: captions, weight: 1, style: long_caption}}
  - {{dataset: trees of the test, data_dir: {folder}, weight: 1}}
preprocessor:
  {{tokenizer: embedded, base_image_input_size: [56, 56], overlap_margins: [0, 0], max_crops: 3,
   max_sequence_length: 512, output: patches}}
mixture: {{policy: stop_all}}
loader:
  {{global_batch_size: 6, packing: {{length: 512, window: 64}}, max_crops: 16, seed: 3, consumer: molmo, num_epochs: 3}}
""")
    return path


def run(program: Path, ranks: int, recipe: Path, out: Path, **environment: str) -> subprocess.Popen:
    os.environ.update(environment)
    try:
        return start(program, "raw", ranks, str(recipe), str(out))
    finally:
        for name in environment:
            del os.environ[name]


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_batches_on_one_and_on_three_ranks(recipe, tmp_path):
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    job = run(program, 2, recipe, tmp_path, SLOWLY="1")
    try:
        deadline = time.monotonic() + 120
        while len(seen(tmp_path)) < 4:
            assert job.poll() is None, job.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        job.kill()
        for file in tmp_path.glob("pid.*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.suffix[1:]), signal.SIGKILL)
        job.communicate()
    before = seen(tmp_path)
    torch.set_num_threads(1)
    canonical = open_loader(str(recipe), rank=0, world_size=1)
    expected = [batch_digest([next(iter(canonical))]) for _ in range(len(before) + NUM_STEPS)]
    assert [line["digest"] for line in before] == expected[: len(before)]
    for ranks in (1, 3):
        folder = tmp_path / f"{ranks} ranks"
        folder.mkdir()
        shutil.copy(program, folder)
        (folder / "state.json").write_text(json.dumps(before[-1]["state"]))
        job = run(program, ranks, recipe, folder, NUM_STEPS=str(NUM_STEPS))
        _, error = job.communicate(timeout=180)
        assert job.returncode == 0, error
        after = seen(folder)
        assert {line["world_size"] for line in after} == {ranks}
        assert [line["digest"] for line in after] == expected[len(before) :]
        assert json.dumps(after[-1]["state"]) == json.dumps(canonical.state_dict())
    used = sum(one.samples for one in canonical.account().values())
    assert used == sum(line["samples"] for line in [*before, *after])


@pytest.mark.slow
def test_the_account_of_an_epoch_closes(recipe):
    """Inputs of the order = used + rejected by reason + what no last step took."""
    loader = open_loader(str(recipe), rank=0, world_size=1)
    for _ in loader.iter_epoch():
        pass
    drawn = loader.stream.drawn(0)
    for (name, one), number in zip(loader.account().items(), drawn, strict=True):
        assert one.samples + sum(one.rejected.values()) + one.dropped_samples == number, name
    assert loader.num_samples + sum(loader.rejects.values()) == sum(one.samples for one in loader.account().values())
