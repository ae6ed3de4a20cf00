"""python -m pytest tests/loading/test_torchrun.py -m slow

A real job of two gloo processes is killed in the middle and goes on with one process: it sees the remaining batches.
Under torchrun it reads one dataset, under accelerate a packed mixture.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hpcdata import BestFit, Mixture, Source, TokenLoader
from hpcdata.loading.replaying import batch_digest
from tests.loading import made

TRAIN = """
import json, os, sys, time
import torch
import torch.distributed as dist
from hpcdata import batch_digest
from tests.loading.test_torchrun import make_loader

dataset, out, launcher = sys.argv[1:4]
torch.set_num_threads(1)
with open(f"{out}/pid.{os.getpid()}", "w"):
    pass
if launcher == "accelerate":
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(make_loader(dataset, launcher))
else:
    dist.init_process_group("gloo")
    loader = make_loader(dataset, launcher)
rank, world_size = dist.get_rank(), dist.get_world_size()
assert (loader.rank, loader.world_size) == (rank, world_size)
state_file = out + "/state.json"
num_seen = 0
if os.path.exists(state_file):
    with open(state_file) as file:
        state = json.load(file)
    loader.load_state_dict(state["loader"])
    num_seen = state["num_seen"]
for batch in loader:
    shares = [None] * world_size
    dist.all_gather_object(shares, {key: value.clone() for key, value in batch.items()})
    if rank == 0:
        with open(out + "/seen.jsonl", "a") as file:
            indices = [int(index) for share in shares for index in share["index"]]
            line = {"world_size": world_size, "indices": indices, "digest": batch_digest(shares)}
            file.write(json.dumps(line) + "\\n")
        with open(state_file + ".new", "w") as file:
            json.dump({"loader": loader.state_dict(), "num_seen": num_seen + 1}, file)
        os.replace(state_file + ".new", state_file)
    num_seen += 1
    dist.barrier()
    if world_size > 1:
        time.sleep(0.05)
dist.destroy_process_group()
"""


def make_loader(dataset: str, launcher: str, **options: int) -> TokenLoader:
    if launcher == "torchrun":
        return TokenLoader(dataset, global_batch_size=8, seed=4, num_epochs=2, **options)
    sources = [("first:60%", 3), ("end:40%", 2), ("random:10%", 1)]
    mixture = Mixture(
        [Source(dataset=dataset, name=sampling, sampling=sampling, weight=weight) for sampling, weight in sources],
        policy="stop_all",
    )
    packing = BestFit(length=60, window=50)
    return TokenLoader(
        mixture, global_batch_size=4, seed=4, num_epochs=2, packing=packing, layout="interleaved", **options
    )


def start(program: Path, launcher: str, num_processes: int, *arguments: str) -> subprocess.Popen:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    environment["TMPDIR"] = str(program.parent)  # torchrun leaves a folder where it is killed
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_processes}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(program), *arguments, launcher]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def seen(out: Path) -> list[dict]:
    file = out / "seen.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def memory_maps(out: Path) -> list[str]:
    return [Path(f"/proc/{file.suffix[1:]}/maps").read_text() for file in out.glob("pid.*")]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_are_killed_and_one_goes_on(tmp_path, launcher):
    dataset = made.make_dataset(tmp_path / "data", made.split(made.pairs(200)))
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    job = start(program, launcher, 2, str(dataset), str(tmp_path))
    try:
        deadline = time.monotonic() + 90
        while len(seen(tmp_path)) < 9:
            assert job.poll() is None, job.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        shared = [maps.count("/dev/shm/") for maps in memory_maps(tmp_path)]
        assert shared == [0, 0]  # nothing that a SIGKILL could leave there
    finally:
        job.kill()
        for file in tmp_path.glob("pid.*"):  # torchrun gives each process a session of its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(file.suffix[1:]), signal.SIGKILL)
            file.unlink()
        job.communicate()
    state = json.loads((tmp_path / "state.json").read_text())
    before = seen(tmp_path)
    # a batch that was seen, and killed before its state was saved, comes again
    before = before[: state["num_seen"]]
    assert 9 <= len(before) + 1 < 40
    (tmp_path / "seen.jsonl").unlink()
    job = start(program, launcher, 1, str(dataset), str(tmp_path))
    _, error = job.communicate(timeout=120)
    assert job.returncode == 0, error
    after = seen(tmp_path)
    assert ({line["world_size"] for line in before}, {line["world_size"] for line in after}) == ({2}, {1})
    torch.set_num_threads(1)
    loader = make_loader(str(dataset), launcher, rank=0, world_size=1)
    expected = [(batch["index"].tolist(), batch_digest([batch])) for batch in loader]
    assert [(line["indices"], line["digest"]) for line in before + after] == expected


PREPARED = """
import json, sys
import torch
from accelerate import Accelerator
from hpcdata.loading.step_dataset import StepDataset
from tests.loading.test_torchrun import make_loader

dataset, out, launcher = sys.argv[1:4]
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
steps = StepDataset(make_loader(dataset, launcher))
model, prepared = accelerator.prepare(torch.nn.Linear(2, 2), steps.dataloader(num_workers=1))
rows = [batch["index"].tolist() for batch in prepared]
accelerator.save_state(f"{out}/state")
accelerator.wait_for_everyone()
accelerator.load_state(f"{out}/state")
with open(f"{out}/{accelerator.process_index}.json", "w") as file:
    json.dump(rows, file)
"""

FITTED = """
import json, sys
import pytorch_lightning as lightning
import torch
from hpcdata.loading.step_dataset import StepDataset
from tests.loading.test_torchrun import make_loader

dataset, out, launcher = sys.argv[1:4]
torch.set_num_threads(1)

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.rows = torch.nn.Linear(1, 1), []

    def train_dataloader(self):
        return StepDataset(make_loader(dataset, launcher)).dataloader(num_workers=1)

    def training_step(self, batch, at):
        self.rows.append(batch["index"].tolist())
        return self.layer(torch.ones(1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", **quiet)
model = Model()
trainer.fit(model)
with open(f"{out}/{trainer.global_rank}.json", "w") as file:
    json.dump(model.rows, file)
"""


@pytest.mark.slow
@pytest.mark.parametrize("prepared", [PREPARED, FITTED], ids=["accelerate", "lightning"])
def test_a_dataloader_of_steps_is_not_shared_out_once_more_on_two_ranks(tmp_path, prepared):
    dataset = made.make_dataset(tmp_path / "data", made.split(made.pairs(100)))
    program = tmp_path / "prepared.py"
    program.write_text(prepared)
    job = start(program, "torchrun", 2, str(dataset), str(tmp_path))
    _, error = job.communicate(timeout=120)
    assert job.returncode == 0, error
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    torch.set_num_threads(1)
    whole = [batch["index"].tolist() for batch in make_loader(str(dataset), "torchrun", rank=0, world_size=1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole
