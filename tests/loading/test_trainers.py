"""python -m pytest tests/loading/test_trainers.py -m slow

Real trainers are stopped and go on from their own checkpoints: not one batch is lost, and none is there twice.
"""

import contextlib
import itertools
import os
from pathlib import Path

import pytest
import torch

from hpcdata import BackgroundLoader, BestFit, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Interleaved
from hpcdata.loading.token_streams import Mixture, Source
from hpcdata.loading.trainers import Epochs, hf_dataloader
from tests.loading import made

torch.set_num_threads(1)
PACKINGS = [None, BestFit(length=60, window=16)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    folder = tmp_path_factory.mktemp("made")
    text = {**made.TEXT, "vocab_size": 300, "image_token_id": 299}
    layout = {**made.LAYOUT, "img_token_shift": 300, "text_vocab_size": 300}
    examples = made.pairs(160, grid=2, vocab_size=299)
    image = {**made.IMAGE, "codebook_size": 300}
    return TokenDataset(made.make_dataset(folder, made.split(examples), text=text, image=image, layout=layout))


def loader_of(dataset, packing=None, **options) -> TokenLoader:
    options = {"consumer": "hf", "seed": 5, **options}
    layout = Interleaved(max_length=60)
    return TokenLoader(dataset, global_batch_size=4, layout=layout, packing=packing, rank=0, world_size=1, **options)


def seen(batch) -> int:
    return hash(batch["input_ids"].numpy().tobytes())


def expected(dataset, packing, number) -> list[int]:
    return [seen(batch) for batch in itertools.islice(loader_of(dataset, packing), number)]


class Stopped(Exception):
    pass


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("in_background", [False, True])
def test_epochs_of_a_trainer_follow_each_other(dataset, packing, in_background):
    """Loops that are left early go on where they were; states are of what was handed out."""

    def make() -> Epochs:
        loader = loader_of(dataset, packing)
        return Epochs(BackgroundLoader(loader, num_ahead=3) if in_background else loader)

    batches, found = make(), []
    wanted = expected(dataset, packing, 4 * len(batches))
    for stop in (len(batches), 3, None, 5):  # a whole epoch, a part, its rest, the next
        found += [seen(batch) for batch in itertools.islice(batches, stop)]
    assert found == wanted[: 2 * len(batches) + 5]
    assert batches.epoch == 2
    state = batches.state_dict()
    following = [seen(batch) for batch in batches]
    assert following == wanted[len(found) :][: len(batches) - 5]
    again = make()
    again.load_state_dict(state)
    assert [seen(batch) for batch in again] == following
    again.set_epoch(3)
    assert seen(next(iter(again))) == wanted[3 * len(batches)]
    again.set_epoch(0)
    assert seen(next(iter(again))) == wanted[0]
    again.set_epoch(0)  # nothing: it stands there
    assert seen(next(iter(again))) == wanted[1]


def test_what_lightning_says_of_epochs_is_heeded_at_the_beginning_alone(dataset):
    batches = Epochs(loader_of(dataset))
    batches.sampler.set_epoch(2)
    assert (batches.epoch, batches.loader.epoch) == (2, 2)
    batches.sampler.set_epoch(1)
    assert (batches.epoch, batches.loader.epoch) == (2, 2)
    placed = Epochs(loader_of(dataset))
    placed.loader.set_epoch(3)
    placed.sampler.set_epoch(1)
    assert placed.loader.epoch == 3


def test_epochs_of_a_mixture_without_end_need_a_length(dataset):
    mixture = Mixture([Source(dataset=dataset, name=name) for name in "ab"])
    with pytest.raises(UserError, match="has no end: pass num_steps"):
        Epochs(loader_of(mixture))
    batches = Epochs(loader_of(mixture), num_steps=7)
    assert len(list(batches)) == len(batches) == 7
    with pytest.raises(UserError, match=r"saved with num_steps=7 .* these have 8: pass num_steps=7"):
        Epochs(loader_of(mixture), num_steps=8).load_state_dict(batches.state_dict())
    with pytest.raises(UserError, match="not a state of Epochs"):
        batches.load_state_dict({})


def test_a_background_loader_says_that_nothing_comes(dataset):
    loader = BackgroundLoader(loader_of(dataset, num_epochs=1))
    assert len(list(loader)) == 40
    with pytest.raises(UserError, match="has delivered all of num_epochs=1"):
        list(loader)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("in_background", [False, True])
def test_an_epoch_is_set_before_and_within_a_loop(dataset, packing, in_background):
    """As samplers of torch have it; in the epoch where it stands, a loader that was resumed stays."""
    inner = loader_of(dataset, packing)
    loader = BackgroundLoader(inner, num_ahead=3) if in_background else inner
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    loader.set_epoch(0)
    assert seen(next(batches)) == seen(inner.batch_at(0, 3))
    loader.set_epoch(2)
    assert seen(next(batches)) == seen(inner.batch_at(2, 0))
    assert (inner.epoch, inner.step) == (2, 1)
    with pytest.raises(UserError, match="epoch -1, expected 0 or more"):
        loader.set_epoch(-1)


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_of_transformers(dataset, tmp_path, packing, accumulation):
    """Fresh, stopped in the second epoch, and resumed from a checkpoint before that."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    config = LlamaConfig(
        vocab_size=700, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )

    length = len(hf_dataloader(loader_of(dataset, packing)))
    steps_of_epoch = -(-length // accumulation)

    def train(stop_at: int | None, resume: bool) -> list[int]:
        found: list[int] = []

        class Recorder(Trainer):
            def training_step(self, model, inputs, num_items_in_batch=None):
                found.append(seen(inputs))
                return super().training_step(model, inputs, num_items_in_batch)

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **others):
                if state.global_step == stop_at:
                    raise Stopped

        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=3,
            save_steps=steps_of_epoch + 1,
            gradient_accumulation_steps=accumulation,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        loader = loader_of(dataset, packing)
        trainer = Recorder(model=LlamaForCausalLM(config), args=arguments, callbacks=[Stop()])
        trainer.get_train_dataloader = lambda: hf_dataloader(loader)
        with contextlib.suppress(Stopped):
            trainer.train(resume_from_checkpoint=resume)
        return found

    first = train(stop_at=steps_of_epoch + 3, resume=False)
    rest = train(stop_at=None, resume=True)
    wanted, saved = expected(dataset, packing, 3 * length), length + accumulation
    assert saved < len(first)
    assert first == wanted[: len(first)]
    assert rest == wanted[saved:]


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("num_epochs", "saving"),
    [(40, {"every_n_train_steps": 4}), (None, {"every_n_train_steps": 4}), (None, {"every_n_epochs": 1})],
)
def test_lightning(dataset, tmp_path, packing, num_epochs, saving):
    """Stopped in the second epoch, where it had saved some steps before, or behind the first: then Lightning gives no
    state back, and says the epoch alone. With a loader that has an end, and without.
    """
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self, stop_at: int | None) -> None:
            super().__init__()
            self.layer, self.stop_at, self.found = torch.nn.Linear(1, 1), stop_at, []

        def training_step(self, batch, at):
            if len(self.found) == self.stop_at:
                raise Stopped
            self.found.append(seen(batch))
            return self.layer(torch.ones(1)).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(stop_at: int | None, checkpoint: str | None) -> list[int]:
        model, loader = Model(stop_at), loader_of(dataset, packing, num_epochs=num_epochs)
        save = lightning.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, **saving)
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            callbacks=[save],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with contextlib.suppress(Stopped):
            trainer.fit(model, Epochs(loader), ckpt_path=checkpoint)
        return model.found

    length = len(Epochs(loader_of(dataset, packing)))
    wanted = expected(dataset, packing, 3 * length)
    first = fit(length + 6, None)
    assert first == wanted[: length + 6]
    checkpoint = max(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("step=")[1]))
    saved = int(checkpoint.stem.split("step=")[1])
    assert length <= saved <= len(first)
    assert fit(None, str(checkpoint)) == wanted[saved:]


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_accelerate(dataset, tmp_path, packing):
    from accelerate import Accelerator

    def train(stop_at: int | None, resume: bool) -> list[int]:
        accelerator = Accelerator(cpu=True)
        model = torch.nn.Linear(1, 1)
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        batches = Epochs(loader_of(dataset, packing), device=accelerator.device)
        accelerator.register_for_checkpointing(batches)
        if resume:
            accelerator.load_state(str(tmp_path / "saved"))
        found = []
        while batches.epoch < 3:
            for batch in batches:
                assert batch["input_ids"].device == accelerator.device
                found.append(seen(batch))
                accelerator.backward(model(torch.ones(1)).sum())
                optimizer.step()
                if len(found) % 7 == 0 and not resume:
                    accelerator.save_state(str(tmp_path / "saved"))
                if len(found) == stop_at:
                    return found
        return found

    length = len(Epochs(loader_of(dataset, packing)))
    wanted = expected(dataset, packing, 3 * length)
    first = train(length + 4, False)
    assert first == wanted[: length + 4]
    assert train(None, True) == wanted[(length + 4) // 7 * 7 :]


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_checkpoints_of_torch_distributed(dataset, tmp_path, packing):
    """As torchtitan does: what is saved has state_dict and load_state_dict."""
    from torch.distributed import checkpoint as dcp

    def train(first: int, number: int) -> list[int]:
        model, batches = torch.nn.Linear(1, 1), Epochs(loader_of(dataset, packing), num_steps=1000)
        if first:
            dcp.load({"model": model.state_dict(), "data": batches}, checkpoint_id=tmp_path / f"step-{first}")
        found = []
        for step, batch in enumerate(itertools.islice(batches, number), first + 1):
            found.append(seen(batch))
            if step % 10 == 0:
                dcp.save({"model": model.state_dict(), "data": batches}, checkpoint_id=tmp_path / f"step-{step}")
        return found

    wanted = expected(dataset, packing, 60)
    assert train(0, 38) == wanted[:38]
    assert train(30, 30) == wanted[30:]
    assert sorted(os.listdir(Path(tmp_path))) == [f"step-{step}" for step in (10, 20, 30, 40, 50, 60)]
