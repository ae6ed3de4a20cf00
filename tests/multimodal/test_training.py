"""Models that train on raw batches.   pytest tests/multimodal/test_training.py

A model of two layers, with pictures where they stand; and one of transformers, which is handed batches as they are.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional

from hpcdata.multimodal import (
    DatasetBase,
    IterableDatasetMixture,
    MolmoPreprocessorConfig,
    MultimodalLoader,
    branch_mask,
)
from hpcdata.order.packing import BestFit
from tests import corpora
from tests.multimodal import real

CONFIG = {
    "tokenizer": "embedded",
    "crop_mode": "overlap-and-resize-c2",
    "base_image_input_size": [56, 56],
    "overlap_margins": [0, 0],
    "max_crops": 2,
    "output": "patches",
    "max_sequence_length": 256,
}


class TwoLayers(torch.nn.Module):
    """Two layers of attention over text and pooled patches; attention by `branch_mask`."""

    def __init__(self, vocabulary: int, patch_values: int, *, width: int = 32) -> None:
        super().__init__()
        self.words, self.places = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(512, width)
        self.patches = torch.nn.Linear(patch_values, width)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, 4 * width) for _ in range(2))
        self.outs = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.head = torch.nn.Linear(width, vocabulary)

    def forward(self, batch: dict[str, torch.Tensor], patch_id: int) -> torch.Tensor:
        ids = batch["input_ids"].clamp(min=0)
        hidden = self.words(ids) + self.places(batch["position_ids"].clamp(min=0))
        if "images" in batch:
            patches = self.patches(batch["images"].float()).flatten(1, 2)
            pooled = batch["pooled_patches_idx"]
            for row in range(len(ids)):
                kept = (pooled[row] >= 0).any(dim=1)
                at = torch.nonzero(ids[row] == patch_id)[:, 0]
                if len(at):
                    index = pooled[row][kept]
                    weights = (index >= 0).float()
                    seen = (patches[row][index.clamp(min=0)] * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
                    assert len(seen) == len(at), "as many patch tokens as there are pooled patches"
                    hidden[row] = hidden[row].index_add(0, at, seen)
        mask = branch_mask(batch)
        for layer, out in zip(self.layers, self.outs, strict=True):
            query, key, value, gate = layer(functional.layer_norm(hidden, hidden.shape[-1:])).chunk(4, dim=-1)
            seen = functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], attn_mask=mask)
            hidden = hidden + out(seen[:, 0] * functional.silu(gate))
        return self.head(hidden)


def loss_of(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    weights = batch["loss_masks"].clamp(min=0)
    losses = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].clamp(min=0).flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def train(model: TwoLayers, loader: MultimodalLoader, *, lr: float, steps: int = 50) -> list[float]:
    """The losses of so many steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    patch, losses = loader.preprocessor.words.special("<im_patch>"), []
    for _, batch in zip(range(steps), loader, strict=False):
        loss = loss_of(model(batch, patch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Conversations(DatasetBase):
    def load(self):
        colors = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
        names = sorted(colors)
        return [
            {
                "image": np.full((30 + n, 40, 3), colors[names[n % 3]], np.uint8),
                "messages": ["Which color?", names[n % 3], "Sure?", "Yes " * (1 + n % 4)],
            }
            for n in range(60)
        ]


class Trees(DatasetBase):
    def load(self):
        return [
            {
                "image": np.full((64, 64, 3), 4 * n, np.uint8),
                "message_list": [
                    {"style": "vqa2", "question": f"Is it {word}?", "answer": "yes" if word == "gray" else "no"}
                    for word in ("gray", "red", "round")[: 1 + n % 3]
                ],
            }
            for n in range(40)
        ]


class Texts(DatasetBase):
    def load(self):
        return [{"messages": [f"Count to {n}.", " ".join(map(str, range(n)))]} for n in range(1, 20)]


def make_parts(**options):
    preprocessor = MolmoPreprocessorConfig(**CONFIG).build_preprocessor(is_training=True)
    mixture = IterableDatasetMixture({"c": Conversations(), "t": Trees(), "x": Texts()}, [3, 2, 1], seed=1)
    torch.manual_seed(0)
    return preprocessor, mixture, TwoLayers(preprocessor.words.vocab_size, 588)


def test_packed_rows_give_the_logits_of_single_ones_pictures_and_branches_among_them():
    preprocessor, mixture, model = make_parts()
    options = {"consumer": "molmo", "rank": 0, "world_size": 1}
    packing = BestFit(length=512, max_images=12, window=64)
    packed = MultimodalLoader(mixture, preprocessor, global_batch_size=4, packing=packing, **options)
    batch = next(iter(packed))
    patch = preprocessor.words.special("<im_patch>")
    logits = model(batch, patch)
    number = 0
    for row, segments in enumerate(batch["segment_ids"]):
        for segment in range(1, int(segments.max()) + 1):
            at = segments == segment
            draws = packed._steps.batch(0, 0, packed._share).draws
            source, place = int(draws.source[number]), int(draws.rows[number])
            alone = packed._fetching.make(source, place, _seed(packed, draws, number))
            single = preprocessor.build_collator(consumer="molmo")([alone])
            assert torch.equal(single["input_ids"][0], batch["input_ids"][row][at])
            assert torch.allclose(model(single, patch)[0], logits[row][at], atol=1e-4)
            number += 1
    assert number > 8


def _seed(loader, draws, number):
    from hpcdata.multimodal.loading.lengths import seeds_of

    return seeds_of(draws, loader._sources)[number]


@pytest.mark.slow
def test_the_loss_falls_within_fifty_steps():
    preprocessor, mixture, model = make_parts()
    packing = BestFit(length=384, max_images=9, window=64)
    loader = MultimodalLoader(
        mixture, preprocessor, global_batch_size=2, packing=packing, consumer="molmo", rank=0, world_size=1
    )
    losses = train(model, loader, lr=1e-2)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.fixture(scope="module")
def llama():
    transformers = pytest.importorskip("transformers")
    preprocessor = MolmoPreprocessorConfig(**CONFIG).build_preprocessor(is_training=True)
    config = transformers.LlamaConfig(
        vocab_size=preprocessor.words.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval(), preprocessor


def of_text(batch):
    return {key: value for key, value in batch.items() if not key.startswith(("image", "pooled"))}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [Texts, Trees])
def test_a_model_of_transformers_keeps_packed_examples_apart(llama, dataset):
    """Of batches as they are handed to it: no mask, or one of four dimensions where there are branches."""
    model, preprocessor = llama
    packing = BestFit(length=512, max_images=12, window=16)
    loader = MultimodalLoader(dataset(), preprocessor, global_batch_size=1, packing=packing, rank=0, world_size=1)
    batch = next(iter(loader))
    edges = batch.get("cu_seq_lens_q")
    with torch.no_grad():
        logits = model(**of_text(batch)).logits[0]
        if edges is None:
            starts = torch.nonzero(batch["position_ids"][0] == 0)[:, 0].tolist()
            edges = torch.tensor([*starts, int((batch["attention_mask"][0, 0].any(0)).sum())])
        draws = loader._steps.batch(0, 0, loader._share).draws
        for number, row in enumerate(draws.rows.tolist()):
            alone = loader._fetching.make(0, row, _seed(loader, draws, number))
            single = of_text(preprocessor.build_collator()([alone]))
            length = single["input_ids"].shape[1]
            start = int(edges[number])
            assert torch.equal(batch["input_ids"][0, start : start + length], single["input_ids"][0])
            assert torch.allclose(model(**single).logits[0], logits[start : start + length], atol=1e-4)
    assert number >= 2


@pytest.mark.slow
@pytest.mark.skipif(not corpora.available("tuxpaint"), reason="needs tuxpaint-stamps-default")
def test_it_trains_on_real_pictures(tmp_path):
    pairs = corpora.pairs("tuxpaint")[:120]
    real.write_trees(pairs, tmp_path)
    preprocessor, _, model = make_parts()
    loader = MultimodalLoader(
        real.Trees(data_dir=str(tmp_path)),
        preprocessor,
        global_batch_size=2,
        packing=BestFit(length=512, max_images=12, window=32),
        consumer="molmo",
        rank=0,
        world_size=1,
    )
    losses = train(model, loader, lr=5e-3)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert not loader.rejects
