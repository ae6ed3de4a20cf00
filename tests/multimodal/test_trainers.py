"""Real trainers with raw batches: stopped, and resumed from their own checkpoints.

pytest tests/multimodal/test_trainers.py -m slow
"""

import contextlib
import itertools

import pytest
import torch

from hpcdata.loading.trainers import Epochs, hf_dataloader
from hpcdata.multimodal import MolmoPreprocessorConfig, MultimodalLoader
from hpcdata.order.packing import BestFit
from tests.loading.test_trainers import Stopped, seen
from tests.multimodal.test_training import CONFIG, Conversations, of_text

PACKINGS = [None, BestFit(length=256, max_images=9, window=16)]


def loader_of(packing) -> MultimodalLoader:
    preprocessor = MolmoPreprocessorConfig(**CONFIG).build_preprocessor()
    where = {"rank": 0, "world_size": 1}
    return MultimodalLoader(Conversations(), preprocessor, global_batch_size=2, packing=packing, seed=5, **where)


def expected(packing, number) -> list[int]:
    return [seen(batch) for batch in itertools.islice(loader_of(packing), number)]


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_the_trainer_of_transformers(tmp_path, packing):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=loader_of(None).preprocessor.words.vocab_size, **sizes)
    length = len(hf_dataloader(loader_of(packing)))

    def train(stop_at: int | None, resume: bool) -> list[int]:
        found: list[int] = []

        class Recorder(Trainer):
            def training_step(self, model, inputs, num_items_in_batch=None):
                found.append(seen(inputs))
                return super().training_step(model, of_text(inputs), num_items_in_batch)

        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **others):
                if state.global_step == stop_at:
                    raise Stopped

        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=2,
            save_steps=3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        loader = loader_of(packing)
        trainer = Recorder(model=LlamaForCausalLM(config), args=arguments, callbacks=[Stop()])
        trainer.get_train_dataloader = lambda: hf_dataloader(loader)
        with contextlib.suppress(Stopped):
            trainer.train(resume_from_checkpoint=resume)
        return found

    first = train(stop_at=5, resume=False)
    rest = train(stop_at=None, resume=True)
    wanted = expected(packing, 2 * length)
    assert first == wanted[:5]
    assert rest == wanted[3:]


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
def test_accelerate(tmp_path, packing):
    from accelerate import Accelerator

    def train(stop_at: int | None, resume: bool) -> list[int]:
        accelerator = Accelerator(cpu=True)
        batches = Epochs(loader_of(packing), device=accelerator.device)
        model = accelerator.prepare(torch.nn.Linear(1, 1))
        accelerator.register_for_checkpointing(batches)
        if resume:
            accelerator.load_state(str(tmp_path / "saved"))
        found = []
        while batches.epoch < 2:
            for batch in batches:
                found.append(seen(batch))
                accelerator.backward(model(torch.ones(1)).sum())
                if len(found) == 4 and not resume:
                    accelerator.save_state(str(tmp_path / "saved"))
                if len(found) == stop_at:
                    return found
        return found

    wanted = expected(packing, 2 * len(Epochs(loader_of(packing))))
    assert train(6, False) == wanted[:6]
    assert train(None, True) == wanted[4:]
