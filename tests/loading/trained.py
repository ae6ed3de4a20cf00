"""A training by one of the trainers, in a process of its own that may end itself by SIGKILL: for test_killed_trainers.

    python -m tests.loading.trained NAME DATASET FOLDER [KILL_AT]

It goes on from the newest checkpoint in FOLDER, if there is one, to the end of NUM_EPOCHS. Each batch that the training
is given is a line of FOLDER/fed: how many this process was given before, and the digest.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hpcdata import BackgroundLoader, BestFit, TokenLoader, batch_digest
from hpcdata.loading.layouts.named import Interleaved
from hpcdata.loading.trainers import Epochs, hf_dataloader

NUM_EPOCHS, SAVE_EVERY = 3, 5
Fed = Callable[[Any], None]


def loader_of(dataset: str) -> TokenLoader:
    layout, packing = Interleaved(max_length=60), BestFit(length=60, window=16)
    options = {"layout": layout, "packing": packing, "consumer": "hf", "seed": 5, "rank": 0, "world_size": 1}
    return TokenLoader(dataset, global_batch_size=4, **options)


def transformers(loader: TokenLoader, folder: Path, fed: Fed) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    class Watched(Trainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            fed(inputs)
            return super().training_step(model, inputs, num_items_in_batch)

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=NUM_EPOCHS,
        save_steps=SAVE_EVERY,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=700, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    trainer = Watched(model=model, args=arguments)
    trainer.get_train_dataloader = lambda: hf_dataloader(loader)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))


def lightning(loader: TokenLoader, folder: Path, fed: Fed) -> None:
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, at):
            fed(batch)
            return self.layer(torch.ones(1)).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    save = lightning.callbacks.ModelCheckpoint(folder, every_n_train_steps=SAVE_EVERY, save_last=True)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=NUM_EPOCHS, callbacks=[save], **options)
    trainer.fit(Model(), Epochs(loader), ckpt_path="last" if (folder / "last.ckpt").exists() else None)


def accelerate(loader: TokenLoader, folder: Path, fed: Fed) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batches = Epochs(BackgroundLoader(loader), device=accelerator.device)
    accelerator.register_for_checkpointing(batches)
    saved = sorted(folder.glob("step-*"))
    if saved:
        accelerator.load_state(str(saved[-1]))
    while batches.epoch < NUM_EPOCHS:
        for batch in batches:
            fed(batch)
            accelerator.backward(model(torch.ones(1)).sum())
            optimizer.step()
            if batches.num_delivered % SAVE_EVERY == 0:
                accelerator.save_state(str(folder / f"step-{batches.num_delivered:04d}"))


def torchtitan(loader: TokenLoader, folder: Path, fed: Fed) -> None:
    """A loop over steps with torch's distributed checkpoints."""
    from torch.distributed import checkpoint as dcp

    model, batches = torch.nn.Linear(1, 1), Epochs(BackgroundLoader(loader))
    saved, first = sorted(folder.glob("step-*")), 0
    if saved:
        dcp.load({"model": model.state_dict(), "data": batches}, checkpoint_id=saved[-1])
        first = int(saved[-1].name.removeprefix("step-"))
    endless = itertools.chain.from_iterable(iter(batches) for _ in itertools.count())
    for step, batch in enumerate(itertools.islice(endless, NUM_EPOCHS * len(batches) - first), first + 1):
        fed(batch)
        model(torch.ones(1)).sum().backward()
        if step % SAVE_EVERY == 0:
            dcp.save({"model": model.state_dict(), "data": batches}, checkpoint_id=folder / f"step-{step:04d}")


TRAINERS = {found.__name__: found for found in (transformers, lightning, accelerate, torchtitan)}


def main(name: str, dataset: str, folder: str, kill_at: str = "-1") -> None:
    torch.set_num_threads(1)
    number = itertools.count()
    with open(Path(folder) / "fed", "a") as file:

        def fed(batch: Any) -> None:
            print(at := next(number), batch_digest([batch]), file=file, flush=True)
            if at == int(kill_at):
                os.kill(os.getpid(), signal.SIGKILL)

        TRAINERS[name](loader_of(dataset), Path(folder), fed)


if __name__ == "__main__":
    main(*sys.argv[1:])
