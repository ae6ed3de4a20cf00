"""A small model of transformers, trained on packed rows by the trainer that you choose; it can be stopped and resumed.

    python -m tests.examples.train transformers OUT --steps 20     # makes a small dataset in OUT, trains 20 steps
    python -m tests.examples.train transformers OUT --steps 40     # goes on with step 21

In place of `transformers`: lightning, accelerate, torch (a loop of one's own, with torch.distributed.checkpoint).
Each step is a line: what it was fed, as a digest, and its loss. The lines of `hpcdata` are those with a comment.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from hpcdata import TokenLoader, batch_digest
from hpcdata.loading.layouts.named import Interleaved
from hpcdata.loading.trainers import Epochs, hf_dataloader
from tests.loading import made

SAVE_EVERY = 5


def make_loader(out: Path) -> TokenLoader:
    if not (out / "data").exists():
        made.make_dataset(out / "data", made.split(made.pairs(400, grid=2, max_text=40)))
    return TokenLoader(  # the only place that knows of data
        out / "data", global_batch_size=4, layout=Interleaved(max_length=128), packing="bestfit", consumer="hf"
    )


def make_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32001 + 16384 + 3, **sizes))


def say(step: int, batch: dict[str, Any], loss: torch.Tensor) -> None:
    print(f"step {step} fed {batch_digest([batch])} loss {float(loss):.3f}", flush=True)


def with_transformers(out: Path, num_steps: int) -> None:
    from transformers import Trainer, TrainingArguments

    class Telling(Trainer):
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
            loss = super().training_step(model, inputs, num_items_in_batch)
            say(self.state.global_step + 1, inputs, loss)
            return loss

    arguments = TrainingArguments(
        output_dir=str(out), max_steps=num_steps, save_steps=SAVE_EVERY, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Telling(model=make_model(), args=arguments)
    loader = make_loader(out)
    trainer.get_train_dataloader = lambda: hf_dataloader(loader)  # type: ignore[method-assign]
    trainer.train(resume_from_checkpoint=any(out.glob("checkpoint-*")))


def with_lightning(out: Path, num_steps: int) -> None:
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()

        def training_step(self, batch: dict[str, Any], at: int) -> torch.Tensor:
            loss = self.model(**batch).loss
            say(self.global_step + 1, batch, loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    save = lightning.callbacks.ModelCheckpoint(out, every_n_train_steps=SAVE_EVERY, save_last=True)
    trainer = lightning.Trainer(max_steps=num_steps, accelerator="cpu", callbacks=[save], logger=False)
    last = out / "last.ckpt"
    trainer.fit(Module(), Epochs(make_loader(out)), ckpt_path=str(last) if last.exists() else None)  # Epochs


def with_accelerate(out: Path, num_steps: int) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = make_model()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    batches = Epochs(make_loader(out), device=accelerator.device)  # batches on the device
    accelerator.register_for_checkpointing(batches)  # its state is in the checkpoints
    if (out / "saved").exists():
        accelerator.load_state(str(out / "saved"))
    while batches.num_delivered < num_steps:
        for batch in batches:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            say(batches.num_delivered, batch, loss)
            if batches.num_delivered % SAVE_EVERY == 0:
                accelerator.save_state(str(out / "saved"))
            if batches.num_delivered == num_steps:
                break


def with_torch(out: Path, num_steps: int) -> None:
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    batches = Epochs(make_loader(out), num_steps=1_000_000)  # a Stateful, as the model is
    saved = sorted(out.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    if saved:
        of_model, of_optimizer = get_state_dict(model, optimizer)
        dcp.load({"model": of_model, "optimizer": of_optimizer, "data": batches}, checkpoint_id=saved[-1])
        set_state_dict(model, optimizer, model_state_dict=of_model, optim_state_dict=of_optimizer)
    for batch in batches:
        if batches.num_delivered > num_steps:
            break
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        say(batches.num_delivered, batch, loss)
        if batches.num_delivered % SAVE_EVERY == 0:
            of_model, of_optimizer = get_state_dict(model, optimizer)
            state = {"model": of_model, "optimizer": of_optimizer, "data": batches}
            dcp.save(state, checkpoint_id=out / f"step-{batches.num_delivered}")


def main() -> None:
    trainers = {
        "transformers": with_transformers,
        "lightning": with_lightning,
        "accelerate": with_accelerate,
        "torch": with_torch,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer", choices=trainers)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    trainers[options.trainer](options.out, options.steps)


if __name__ == "__main__":
    main()
